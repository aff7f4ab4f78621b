"""Valid inputs made wrong: bytes, JSON values, PNG, safetensors and `.pth` with their structure kept."""

import copy
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch

# what readers of numbers, texts and lists stumble over
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e-320, 1e308, -1e308, float('nan'), float('inf'), -float('inf'),
    2**31, 2**63, -(2**63), 2**64, 10**25, 10**400, '', 'a', '1', 'NaN', '../../x', '\0', '\ud800', 'left_eye', [], {},
    [[]], [None], [0], [1, 2, 3, 4], ['a'], {'a': 1}, [[1, 2], [3]], 'x' * 5000,
)  # fmt: skip


def mutate_bytes(random: Random, data: bytes, others: Iterable[bytes] = ()) -> bytes:
    """Flip, overwrite, cut, repeat, insert or splice, one to six times."""
    content = bytearray(data)
    others = list(others)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if not content:
            break
        at = random.randrange(len(content))
        step = min(len(content) - at, random.choice((1, 2, 4, 8, 32, 200)))
        match random.randrange(8):
            case 0:
                content[at] ^= 1 << random.randrange(8)
            case 1:
                content[at : at + step] = random.choice((b'\0', b'\xff', b'\x7f', b'\x80')) * step
            case 2:
                size = random.choice((1, 2, 4, 8))
                number = random.choice((0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63))
                order = random.choice(('<', '>'))
                packed = struct.pack(f'{order}Q', number)
                content[at : at + size] = packed[:size] if order == '<' else packed[-size:]
            case 3:
                del content[at : at + step]
            case 4:
                del content[at:]
            case 5:
                content[at:at] = bytes(content[at : at + step]) * random.choice((1, 2, 50))
            case 6:
                content[at:at] = bytes(random.randrange(256) for _ in range(min(step, 8)))
            case 7:
                if others:
                    other = random.choice(others)
                    cut = random.randrange(len(other))
                    content[at:] = other[cut:]
    return bytes(content)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    keys: Iterable[Any] = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def mutate_json(random: Random, value: Any, nasty: tuple[Any, ...] = NASTY) -> Any:
    """Set, drop, repeat, rename, add or swap entries anywhere in it, one to four times."""
    root = [copy.deepcopy(value)]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = _places(root, [])
        # each depth is as likely as another, or the many numbers of keypoints take all
        depth: dict[int, list[tuple[Any, Any]]] = {}
        for holder, key in places:
            depth.setdefault(len(holder) if isinstance(holder, list) else -1, []).append((holder, key))
        holder, key = random.choice(random.choice(list(depth.values())))
        match random.randrange(8):
            case 0 | 1 | 2 | 3:
                holder[key] = copy.deepcopy(random.choice(nasty))
            case 4:
                if holder is not root:
                    del holder[key]
            case 5:
                if isinstance(holder, list) and holder is not root:
                    holder.insert(key, copy.deepcopy(holder[key]))
                elif isinstance(holder, dict):
                    holder[f'{key}x'] = holder.pop(key)
            case 6:
                other = random.choice(places)
                holder[key] = copy.deepcopy(other[0][other[1]]) if other[0] is not root else 0
            case 7:
                if isinstance(holder, dict):
                    holder['surprise'] = copy.deepcopy(random.choice(nasty))
                else:
                    holder[key] = [holder[key]]
        if not root or not isinstance(root[0], (dict, list)):
            break
    return root[0]


def to_json(random: Random, value: Any, ascii_only: bool = True) -> bytes:
    """JSON text of a value, itself damaged at times."""
    data = json.dumps(value, ensure_ascii=ascii_only).encode('utf-8', 'surrogatepass')
    match random.randrange(12):
        case 0:
            return mutate_bytes(random, data)
        case 1 if random.randrange(8) == 0:
            deep = random.choice((100, 5000, 200_000))
            return random.choice((b'[', b'{"a":', b'[[{"images":')) * deep
        case 2 if random.randrange(8) == 0:
            return random.choice((b'\xef\xbb\xbf', b'\xff\xfe', b'\0', b'\n' * 50)) + data
    return data


def json_input(*seeds: Any) -> Callable[[Random], bytes]:
    """Inputs from valid JSON values."""
    return lambda random: to_json(random, mutate_json(random, random.choice(seeds)))


def bytes_input(*seeds: bytes, mend: Callable[[bytes], bytes] = bytes) -> Callable[[Random], bytes]:
    """Inputs from valid files; `mend` makes checksums right again, half of the time."""

    def make(random: Random) -> bytes:
        data = mutate_bytes(random, random.choice(seeds), seeds)
        return mend(data) if random.randrange(2) else data

    return make


def mend_png(data: bytes) -> bytes:
    """Right checksums for the chunks of a PNG, so that damage reaches the decoder behind them."""
    if data[:8] != b'\x89PNG\r\n\x1a\n':
        return data
    content, at = bytearray(data), 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from('>I', content, at)
        if at + 12 + length > len(content):
            break
        struct.pack_into('>I', content, at + 8 + length, zlib.crc32(content[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(content)


def vary(random: Random, data: bytes) -> bytes:
    """Any input changed once more, with its structure kept where it has one."""
    try:
        value = json.loads(data)
        if isinstance(value, (dict, list)) and value:
            return to_json(random, mutate_json(random, value))
    except (ValueError, RecursionError):
        pass
    length = int.from_bytes(data[:8], 'little')
    if 8 + length <= len(data) and data[8:9] == b'{':
        text = vary(random, data[8 : 8 + length])
        return struct.pack('<Q', len(text)) + text + data[8 + length :]
    return mend_png(mutate_bytes(random, data))


def safetensors_input(seed: bytes) -> Callable[[Random], bytes]:
    """Inputs from a safetensors file: damaged bytes, or a changed header of the right length."""

    def make(random: Random) -> bytes:
        if random.randrange(4) == 0:
            return mutate_bytes(random, seed)
        (length,) = struct.unpack_from('<Q', seed)
        header, valid = (json.loads(seed[8 : 8 + length]) for _ in range(2))
        body = bytearray(seed[8 + length :])
        names = [name for name in header if name != '__metadata__']
        for _ in range(random.choice((1, 1, 2, 5))):
            name = random.choice(names)
            entry = header.get(name)
            if not isinstance(entry, dict):
                continue
            # what an earlier change left there may claim any size
            (start, end), shape = valid[name]['data_offsets'], valid[name]['shape']
            match random.randrange(8):
                case 0:
                    entry['shape'] = random.choice((shape[::-1], [], [-1], [2**40, 0], [0], [*shape, 1], [1, *shape]))
                case 1:
                    entry['dtype'] = random.choice(('F16', 'BF16', 'F64', 'I32', 'U8', 'BOOL', 'F8_E4M3', 'C64', 'X9'))
                case 2:
                    header[rename(random, name)] = header.pop(name)
                case 3:
                    # the same bytes as other numbers: NaN, infinities, huge values
                    word = random.choice((b'\0\0\xc0\x7f', b'\0\0\x80\x7f', b'\xff\xff\x7f\x7f', b'\0\0\0\0'))
                    body[start:end] = (word * ((end - start) // 4 + 1))[: end - start]
                case 4:
                    entry['data_offsets'] = random.choice(([start, end + 4], [end, start], [0, 2**60], [start]))
                case 5:
                    header[name] = mutate_json(random, entry)
                case 6:
                    del header[name]
                case 7:
                    # an empty tensor costs no bytes, so its name and shape may claim anything
                    header[rename(random, name)] = {
                        'dtype': 'F32',
                        'shape': random.choice(([0], [0, 2**40], [2**40, 0, 1, 1])),
                        'data_offsets': [len(body), len(body)],
                    }
        text = json.dumps(header).encode()
        text += b' ' * (-len(text) % 8)
        length = random.choice((len(text),) * 9 + (len(text) + 1, 0, 2**63, len(text) // 2))
        return struct.pack('<Q', length) + text + bytes(body)

    return make


def rename(random: Random, name: str) -> str:
    """Another name of a weight: another index, a prefix, a letter more."""
    parts = name.split('.')
    match random.randrange(4):
        case 0 | 1:
            places = [i for i, part in enumerate(parts) if part.isdecimal()]
            if places:
                parts[random.choice(places)] = random.choice(('7', '99999999', '00', '1' * 30))
                return '.'.join(parts)
            return f'{name}.0'
        case 2:
            return random.choice(('module.', '_orig_mod.', 'backbone.', 'ema_', 'model.')) + name
    return random.choice((f'{name}x', '', name.upper(), '\u0663', 'a' * 3000))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of a pickle was run')",))


def pth_input(state: dict[str, torch.Tensor]) -> Callable[[Random], bytes]:
    """Inputs from an official checkpoint: damaged bytes, or a changed dict in a whole file."""
    buffer = io.BytesIO()
    torch.save({'meta': {'epoch': 3}, 'state_dict': state}, buffer)
    whole = buffer.getvalue()

    def tensor(random: Random, value: torch.Tensor) -> Any:
        numbers = value.float()
        value = value if value.ndim else value[None]
        return random.choice(
            (
                lambda: value.half(), lambda: value.double(), lambda: value.bfloat16(), lambda: numbers.long(),
                lambda: numbers.to(torch.complex64), lambda: numbers.to(torch.float8_e4m3fn), lambda: numbers > 0,
                lambda: torch.full_like(numbers, float('nan')), lambda: torch.full_like(numbers, float('inf')),
                lambda: torch.full_like(numbers, 3e38), lambda: value.flatten(), lambda: value[None],
                lambda: value.reshape(-1)[:1].reshape(()), lambda: value[:0], lambda: torch.empty((0, 2**40)),
                lambda: numbers.reshape(-1)[:1].expand(2**20, 2**20), lambda: numbers.to_sparse(),
                lambda: numbers.reshape(-1)[:1].expand(2**40, 8, 1, 1), lambda: value.to('meta'),
                lambda: torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8), lambda: torch.nn.Parameter(numbers),
                lambda: 1.5, lambda: None, lambda: 'text', lambda: value.tolist(), lambda: {'weight': value},
            )
        )()  # fmt: skip

    def make(random: Random) -> bytes:
        if random.randrange(4) == 0:
            return mutate_bytes(random, whole)
        changed: dict[Any, Any] = dict(state)
        names = list(changed)
        for _ in range(random.choice((0, 1, 1, 1, 2, 5))):
            name = random.choice(names)
            if name not in changed:
                continue
            match random.randrange(5):
                case 0 | 1:
                    changed[name] = tensor(random, changed[name]) if isinstance(changed[name], torch.Tensor) else 0
                case 2:
                    changed[rename(random, name)] = changed.pop(name)
                case 3:
                    del changed[name]
                case 4:
                    changed[random.choice((3, None, (1, 2), 'extra.weight', 'ema_x', b'bytes'))] = torch.zeros(1)
        content: Any = {'meta': {'epoch': 3}, 'state_dict': changed}
        match random.randrange(10):
            case 0:
                content = changed
            case 1:
                content['state_dict'] = random.choice((None, [], {}, [changed], 'text', 3))
            case 2:
                content['meta'] = random.choice(
                    (None, [], 'x', {'config': 'image_size=[32, 32]'}, {'config': 'image_size=[0, 99999968]'}, _Evil())
                )
            case 3:
                content[random.choice(('ema_state_dict', 'state_dict_ema', 'optimizer', 5))] = random.choice(
                    (changed, None, {}, {'steps': 3}, [1])
                )
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=random.randrange(8) > 0)
        return buffer.getvalue()

    return make
