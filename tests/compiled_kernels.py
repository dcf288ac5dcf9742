"""Compiles the GPU's kernels where there is no GPU, and prints what they need as JSON.

A process of its own: Triton is told when it is imported whether to compile or to interpret.
"""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harness.models.chgnet import kernels

INDICES = {"index", "weight_index", "owner", "starts"}
ATOMS = {"K": 3, "OWN": False, "DEEP": True, "NORM": True}
BONDS = {"K": 2, "OWN": True, "DEEP": True, "NORM": True}
ANGLES = {"K": 2, "OWN": True, "DEEP": False, "NORM": True}
CALLS = [
    (kernels._sums_kernel, ATOMS),
    (kernels._rows_kernel, BONDS | {"SUMMED": True}),
    (kernels._rows_kernel, ANGLES | {"SUMMED": False}),
    (kernels._slopes_kernel, ATOMS | {"SUMMED": True}),
    (kernels._slopes_kernel, BONDS | {"SUMMED": True}),
    (kernels._slopes_kernel, ANGLES | {"SUMMED": False}),
]


def needs(kernel, constants, capability):
    constants = constants | {"TILE": kernels._ROWS_PER_TILE}
    types = {
        name: "constexpr"
        if name in constants
        else "*i32"
        if name in INDICES
        else "i32"
        if name == "n_rows"
        else "*fp32"
        for name in kernel.arg_names
    }
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=types, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options=kernels.LAUNCH,
    )
    text = compiled.asm["ptx"]
    return {
        "kernel": kernel.__name__,
        "capability": capability,
        "shared_bytes": compiled.metadata.shared,
        "tensor_cores": "mma.sync" in text or "wgmma" in text,
        "machine_code_bytes": len(compiled.asm["cubin"]),
    }


if __name__ == "__main__":
    capabilities = [int(argument) for argument in sys.argv[1:]]
    print(json.dumps([needs(*call, c) for c in capabilities for call in CALLS]))
