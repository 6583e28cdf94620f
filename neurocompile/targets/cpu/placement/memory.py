"""How generated C reaches a buffer."""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.loops import Access, Buffer
from neurocompile.targets.cpu.placement.layout import Weights, identifier, row_stride

TYPES = {"float32": "float", "int64": "int64_t", "int32": "int32_t", "bool": "uint8_t", "bf16": "uint16_t"}
WINDOW_ITEMS = {"token": "window.item_token[0]", "time": "window.item_time[0]", "intensity": "window.item_intensity[0]"}
ITEMS = {"token": "position.token", "dt": "position.dt", "elapsed": "position.elapsed_item"}


@dataclass(frozen=True)
class Memory:
    """Names of buffers in stage functions, which see the stream as `s` and the weights as `w`."""

    weights: Weights

    def storage(self, buffer: Buffer) -> str:
        """How the buffer's numbers are kept."""
        return self.weights.storage.get(buffer.name, buffer.dtype)

    def base(self, buffer: Buffer) -> str:
        """A pointer to the buffer's first element."""
        if buffer.kind == "weight":
            return f"((const {TYPES[self.storage(buffer)]} *)(w + {self.weights.offsets[buffer.name]}))"
        if buffer.kind == "item":
            return f"(&s->{(ITEMS if buffer.size == 1 else WINDOW_ITEMS)[buffer.name]})"
        if buffer.kind == "local":
            return identifier(buffer.name)
        return f"s->{field_name(buffer)}"

    def pointer(self, access: Access, indices: tuple[str, ...]) -> str:
        """A pointer to the element of an iteration; `indices` are C expressions, one per dimension."""
        terms = [self.base(access.buffer)]
        if access.offset:
            terms.append(str(access.offset))
        if access.row:
            terms.append(f"s->{ITEMS[access.row]} * {self.row_elements(access)}")
        for index, stride in zip(indices, access.strides, strict=True):
            if stride and index != "0":
                terms.append(index if stride == 1 else f"{index} * {stride}")
        return " + ".join(terms)

    def row_elements(self, access: Access) -> int:
        """Elements from row to row, as laid out."""
        storage = self.storage(access.buffer)
        return row_stride(access.row_stride, storage) if storage in ("float32", "bf16") else access.row_stride

    def element(self, access: Access, indices: tuple[str, ...]) -> str:
        """The element of an iteration."""
        text = f"*({self.pointer(access, indices)})"
        return f"nc_from_bf16({text})" if self.storage(access.buffer) == "bf16" else text


def field_name(buffer: Buffer) -> str:
    """The member of `nc_stream` that holds a state or a value between stages."""
    return f"{'x' if buffer.kind == 'state' else 'v'}_{identifier(buffer.name)}"
