#!/usr/bin/env bash
# The kernels for the page in the browser: widehrnet_zoo/web/page/kernels.wasm, or another file.
#
#   pip install ziglang==0.17.1 && scripts/web/build_kernels.sh [OUT]
#
# The same sources and version give the same bytes.
set -euo pipefail
package=$(realpath "$(dirname "$0")/../../widehrnet_zoo")
out=$(realpath -m "${1:-$package/web/page/kernels.wasm}")
cd "$package/kernels/inference"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() { python -m ziglang c++ -target wasm32-wasi -std=c++17 -g0 -fno-exceptions -fno-rtti -fvisibility=hidden "$@"; }
# as in CMakeLists.txt: multiplications and additions may be joined, and NaN is kept
compile -msimd128 -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -DWIDEHRNET_VARIANT=wasm \
    -c variant.cpp -o "$objects/variant.o"
for name in page plan program wasm; do compile -msimd128 -Os -c $name.cpp -o "$objects/$name.o"; done
compile -mexec-model=reactor -Wl,--strip-all "$objects"/*.o -o "$out"
chmod 644 "$out"
