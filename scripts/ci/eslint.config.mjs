// Of the page that runs in the browser: `eslint -c scripts/ci/eslint.config.mjs widehrnet_zoo/web/page`.
// Names and types are TypeScript's to check; tests/test_web.py runs both.
const rules = ['eqeqeq', 'no-var', 'prefer-const', 'no-unused-vars', 'no-shadow', 'no-implicit-coercion', 'no-unreachable',
  'no-fallthrough', 'no-dupe-keys', 'no-loss-of-precision', 'no-self-compare', 'no-useless-return', 'object-shorthand',
  'prefer-template', 'no-eval', 'consistent-return', 'no-constant-condition', 'no-promise-executor-return'];

export default [
  { rules: { ...Object.fromEntries(rules.map((rule) => [rule, 'error'])), 'max-len': ['error', 120] } },
];
