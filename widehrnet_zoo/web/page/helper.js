// @ts-check
/** A thread of the kernels: a worker that runs the same code on the same memory, with a stack of its own. */
onmessage = ({ data: [code, memory, stack, number] }) => {
  const kernels = /** @type {any} */ (new WebAssembly.Instance(code, { env: { memory } }).exports);
  kernels.__stack_pointer.value = stack;
  kernels.help(number);
};
