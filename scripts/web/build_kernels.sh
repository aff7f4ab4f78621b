#!/usr/bin/env bash
# The kernels for the page in the browser, for one thread and for several: kernels.wasm and threads.wasm in
# widehrnet_zoo/web/page, or in another folder.
#
#   pip install ziglang==0.17.1 && scripts/web/build_kernels.sh [FOLDER]
#
# The same sources and version give the same bytes.
set -euo pipefail
package=$(realpath "$(dirname "$0")/../../widehrnet_zoo")
out=$(realpath -m "${1:-$package/web/page}")
cd "$package/kernels/inference"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
    python -m ziglang c++ -target wasm32-wasi -mcpu="generic+simd128$features" -std=c++17 -g0 -fno-exceptions -fno-rtti \
        -fvisibility=hidden "$@"
}

build() { # FILE FEATURES OPTIONS of the linker
    features=$2
    # as in CMakeLists.txt: multiplications and additions may be joined, and NaN is kept
    compile -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -DWIDEHRNET_VARIANT=wasm \
        -c variant.cpp -o "$objects/variant.o"
    for name in page plan program wasm; do compile -Os -c $name.cpp -o "$objects/$name.o"; done
    # a stack of 1 MiB instead of 16
    compile -mexec-model=reactor -Wl,--strip-all,-z,stack-size=1048576 "${@:3}" "$objects"/*.o -o "$out/$1"
    chmod 644 "$out/$1"
}

mkdir -p "$out"
build kernels.wasm ''
# the script makes the memory, of these sizes (nets.js), and gives each worker a stack of its own
build threads.wasm +atomics+bulk_memory \
    -Wl,--import-memory,--export-memory,--shared-memory,--initial-memory=4194304,--max-memory=268435456 \
    -Wl,--export=__stack_pointer
