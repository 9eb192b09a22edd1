"""Key maps: which tensor of a file becomes which parameter of a network, and back."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxad.errors import WeightsError
from jaxad.nn import module_state

if TYPE_CHECKING:
    from jaxad.models.weights.loader import Weights

_HINTS = 50
"""How many missing tensors get a hint at the nearest name; finding one takes milliseconds."""
_STRIP = 16
"""Elements of a kernel's last axis that are copied at once."""


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


@dataclass(frozen=True)
class Leaf:
    """One parameter of a module, in terms of the tensor that holds it.

    Attributes:
        suffix: what follows the module's name in the tensor's name.
        to_parameter: the tensor as the parameter; raises ValueError where it has too few or too many axes.
        to_tensor: the inverse.
        part, parts: the parameter is this one of so many equal pieces of the tensor, cut along its first axis.
    """

    suffix: str
    to_parameter: Callable[[np.ndarray], np.ndarray] = _as_it_is
    to_tensor: Callable[[np.ndarray], np.ndarray] = _as_it_is
    part: int = 0
    parts: int = 1

    def parameter(self, tensor: np.ndarray) -> np.ndarray:
        """The parameter in `tensor`, without a copy where numpy can do so."""
        if self.parts > 1:
            tensor = np.split(tensor, self.parts)[self.part]
        return self.to_parameter(tensor)


Layout = Mapping[str, Leaf]
"""The parameters of a module by their names in it; "" where the row's path is the parameter itself."""

KeyMap = Sequence[tuple[str, str, Layout]]
"""Rows (module path, name in the file, layout).

Each `{}` of the path stands for one number, and the `{}` of the name for the same numbers; plain numbers stand for
themselves, and a row that has more of them goes before one that has fewer. An empty path is the module itself.
"""

_CONV_TO_FLAX = (2, 3, 1, 0)
_CONV_TO_TORCH = (3, 2, 0, 1)


def split_linear(part: int, parts: int, joint: str = ".") -> Layout:
    """A linear layer that the file stacks with `parts - 1` others along their outputs, as in a joint query, key, value.

    Args:
        part: which of them, counted from 0.
        parts: how many there are.
        joint: what stands between the name and `weight` or `bias`; "_" for torch.nn.MultiheadAttention's `in_proj`.
    """
    return {
        "kernel": Leaf(f"{joint}weight", np.transpose, np.transpose, part, parts),
        "bias": Leaf(f"{joint}bias", part=part, parts=parts),
    }


def _squeezed(tensor: np.ndarray) -> np.ndarray:
    return tensor.squeeze((2, 3)).T


def _unsqueezed(array: np.ndarray) -> np.ndarray:
    return array.T[:, :, None, None]


def _conv(to_parameter: Callable[[np.ndarray], np.ndarray], to_tensor: Callable[[np.ndarray], np.ndarray]) -> Layout:
    return {"kernel": Leaf(".weight", to_parameter, to_tensor), "bias": Leaf(".bias")}


ARRAY: Layout = {"": Leaf("")}
"""An array as it is; the row's path is that of the parameter."""
LINEAR: Layout = split_linear(0, 1)
"""Weight [o i] to kernel [i o]."""
MATRIX: Layout = {"kernel": Leaf("")}
"""A bare matrix [i o] as the kernel of a linear layer without bias, as open_clip's projections are."""
CONV: Layout = _conv(lambda tensor: tensor.transpose(_CONV_TO_FLAX), lambda kernel: kernel.transpose(_CONV_TO_TORCH))
"""Weight [o i h w] to kernel [h w i o]; depthwise and grouped convolutions too."""
CONV1X1_AS_LINEAR: Layout = _conv(_squeezed, _unsqueezed)
"""Weight [o i 1 1] of a convolution to kernel [i o] of a linear layer."""
NORM: Layout = {"scale": Leaf(".weight"), "bias": Leaf(".bias")}
"""Layer norm or group norm."""
BATCH_NORM: Layout = {**NORM, "mean": Leaf(".running_mean"), "var": Leaf(".running_var")}
"""Batch norm with its statistics; its `num_batches_tracked` is to be ignored."""


def choose_key_map(weights: Weights, key_maps: Mapping[str, KeyMap]) -> tuple[str, KeyMap]:
    """The layout in which `weights` are named, out of several.

    Args:
        weights: what `find_weights` found.
        key_maps: name of each layout -> its key map, in the order of preference.

    Returns:
        Name and key map of the layout that names most tensors of the file.

    Raises:
        WeightsError: no layout has at least half of its rows in the file; lists those that were tried.
    """
    names, used, shares = list(weights.tensors), {}, {}
    for title, key_map in key_maps.items():
        patterns = [_name_pattern(name, layout) for _, name, layout in key_map]
        exact = set().union(*(pattern for pattern in patterns if isinstance(pattern, set)))
        regexes = [pattern for pattern in patterns if isinstance(pattern, re.Pattern)]
        used[title] = sum(name in exact or any(regex.fullmatch(name) for regex in regexes) for name in names)
        shares[title] = sum(_occurs(pattern, weights.tensors) for pattern in patterns) / max(len(patterns), 1)
    fitting = [title for title in key_maps if shares[title] >= 0.5]
    if not fitting:
        tried = [f"  {title}: {100 * share:.0f} % of its names are there" for title, share in shares.items()]
        examples = ", ".join(sorted(names)[:: max(len(names) // 3, 1)][:3]) or "none"
        raise WeightsError(
            "\n".join([f"{weights}: no layout known here fits; tensors are called, e.g., {examples}", *tried])
        )
    best = max(fitting, key=lambda title: used[title])
    return best, key_maps[best]


def fill(
    module: Any,
    weights: Weights,
    key_map: KeyMap,
    ignore: Sequence[str] = (),
    dtype: Any = None,
    place: Callable[[np.ndarray], Any] = jnp.asarray,
) -> Any:
    """The abstract `module` with every parameter taken from `weights`.

    Tensors are read, cast and let go one after the other, so that memory holds little besides the parameters.

    Args:
        module: an nnx.Module made under `nnx.eval_shape`, so that nothing is initialized only to be overwritten.
        weights: what `find_weights` found.
        key_map: where each parameter lies; rows for modules that this network lacks are skipped.
        ignore: names of tensors that the network has no use for, or patterns of them such as "*.num_batches_tracked".
        dtype: type of all floating-point parameters; None for those that the module was made with.
        place: makes each parameter an array of jax where it belongs, as soon as it is read.

    Raises:
        WeightsError: parameters without a tensor, tensors without a use, wrong shapes and values that are not finite,
            all listed at once, with the nearest names.
    """
    graphdef, parameters = module_state.split(module)
    users = _users(key_map, parameters)
    ignored = re.compile("|".join(map(fnmatch.translate, ignore)) or r"(?!)")
    unused = [name for name in weights.tensors if name not in users and not ignored.match(name)]
    missing = [name for name in users if name not in weights.tensors]
    arrays, problems = {}, []
    for name, hint in itertools.zip_longest(missing, _nearest(missing[:_HINTS], unused), fillvalue=""):
        needs = ", ".join(f"{path} {list(parameters[path].shape)}" for path, _ in users[name])
        problems.append(f"{name}: missing, needed for {needs}{hint}")
    for name in (name for name in users if name in weights.tensors):
        tensor = weights.tensors[name]
        for path, leaf in users[name]:
            wanted = parameters[path]
            array = _cast(leaf, tensor, wanted.shape, _dtype(wanted.dtype, dtype))
            if array is None:
                kind = "complex, " if np.iscomplexobj(tensor) else ""
                problems.append(
                    f"{name}: {kind}shape {list(tensor.shape)} does not fit {path} {list(wanted.shape)}{_of(leaf)}"
                )
            elif not _is_finite(array):
                problems.append(f"{name}: holds values that are not finite, or not in {array.dtype}, for {path}")
            else:
                arrays[path] = place(array)
            del array
        del tensor
    problems += [f"{name}: in the file, but not used by the network" for name in unused]
    if problems:
        raise WeightsError("\n".join([f"{weights}: weights do not fit the network:", *(f"  {p}" for p in problems)]))
    return module_state.merge(graphdef, arrays)


def to_torch(module: Any, key_map: KeyMap) -> dict[str, np.ndarray]:
    """The parameters of `module` under the names and in the layouts of the file that `key_map` describes.

    The inverse of `fill`, bit for bit, where the module has the file's dtype.

    Raises:
        WeightsError: the module holds only some parts of a tensor.
    """
    _, parameters = module_state.split(module)
    tensors = {}
    for name, rows in _users(key_map, parameters).items():
        pieces = {leaf.part: leaf.to_tensor(np.asarray(parameters[path])) for path, leaf in rows}
        parts = rows[0][1].parts
        if absent := set(range(parts)) - pieces.keys():
            raise WeightsError(f"{name}: the network holds no part {sorted(absent)} of its {parts}")
        whole = np.concatenate([pieces[part] for part in range(parts)]) if parts > 1 else pieces[0]
        tensors[name] = np.ascontiguousarray(whole).reshape(whole.shape)
    return tensors


def _users(key_map: KeyMap, paths: Mapping[str, Any]) -> dict[str, list[tuple[str, Leaf]]]:
    """For each tensor that is needed: the parameters that are made of it, and how."""
    rows = {
        f"{module_path}/{leaf_name}".strip("/"): (name + leaf.suffix, leaf)
        for module_path, name, layout in reversed(key_map)
        for leaf_name, leaf in layout.items()
    }
    users: dict[str, list[tuple[str, Leaf]]] = {}
    for path in paths:
        for pattern, numbers in _patterns(path):
            if pattern in rows:
                name, leaf = rows[pattern]
                users.setdefault(name.format(*numbers), []).append((path, leaf))
                break
        else:
            raise KeyError(f"the key map has no row for the parameter {path}")
    return users


def _patterns(path: str) -> Iterator[tuple[str, list[str]]]:
    """Every form in which a row may name `path`, with the numbers that its `{}` stand for; most plain numbers first."""
    choices = [(part, "{}") if part.isdigit() else (part,) for part in path.split("/")]
    forms = sorted(itertools.product(*choices), key=lambda form: form.count("{}"))
    parts = path.split("/")
    for form in forms:
        yield "/".join(form), [part for part, shown in zip(parts, form, strict=True) if shown == "{}"]


def _name_pattern(name: str, layout: Layout) -> set[str] | re.Pattern[str]:
    """The tensors' names that a row stands for, as a pattern where they hold numbers not known."""
    suffixes = {leaf.suffix for leaf in layout.values()}
    if "{" not in name:
        return {name + suffix for suffix in suffixes}
    stem = r"\d+".join(map(re.escape, re.split(r"\{\d*\}", name)))
    return re.compile(f"{stem}(?:{'|'.join(map(re.escape, sorted(suffixes)))})")


def _occurs(pattern: set[str] | re.Pattern[str], names: Mapping[str, Any]) -> bool:
    if isinstance(pattern, set):
        return any(name in names for name in pattern)
    return any(pattern.fullmatch(name) for name in names)


def _nearest(missing: Sequence[str], unused: Sequence[str]) -> list[str]:
    """What to say about the unused name nearest to each missing one, "" where none is near."""
    found = (difflib.get_close_matches(name, unused, n=1, cutoff=0.8) for name in missing)
    return [f"; nearest in the file: {names[0]}" if names else "" for names in found]


def _dtype(wanted: Any, dtype: Any) -> Any:
    return dtype if dtype is not None and jnp.issubdtype(wanted, jnp.floating) else wanted


def _cast(leaf: Leaf, tensor: np.ndarray, shape: Sequence[int], dtype: Any) -> np.ndarray | None:
    """The parameter that a tensor gives, in memory of its own; None where it has another shape or is complex.

    Its shape is known before anything is allocated: a few bytes of a file can show an array of any size.
    """
    try:
        source = leaf.parameter(tensor)
    # Too few or too many axes, or a first axis that cannot be cut.
    except (ValueError, IndexError):
        return None
    if source.shape != tuple(shape) or (np.iscomplexobj(source) and not jnp.issubdtype(dtype, jnp.complexfloating)):
        return None
    array = np.empty(source.shape, dtype)
    with np.errstate(over="ignore"):
        if source.flags.c_contiguous:
            array[...] = source
            return array
        # Transposing in strips, whose lines stay in the cache, takes a third of the time.
        for start in range(0, source.shape[-1], _STRIP):
            array[..., start : start + _STRIP] = source[..., start : start + _STRIP]
    return array


def _is_finite(array: np.ndarray) -> bool:
    """Whether all values are finite, without an array of answers and as fast for bfloat16 as for float32.

    As integers of the same bits, positive values that are not finite come after all finite ones where the sign counts,
    negative ones where it does not.
    """
    if not array.size or not jnp.issubdtype(array.dtype, jnp.floating):
        return True
    infinity, size = np.array([np.inf, -np.inf]).astype(array.dtype), array.dtype.itemsize
    signed, unsigned = (np.dtype(f"{kind}{size}") for kind in "iu")
    return bool(
        array.view(signed).max() < infinity.view(signed)[0] and array.view(unsigned).max() < infinity.view(unsigned)[1]
    )


def _of(leaf: Leaf) -> str:
    return f", which is part {leaf.part + 1} of {leaf.parts}" if leaf.parts > 1 else ""
