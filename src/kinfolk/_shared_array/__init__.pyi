"""numpy arrays in the family's arena: shared_array() and share()."""

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, TypeVar, overload

import numpy
from numpy.typing import ArrayLike, DTypeLike, NDArray

_ScalarT = TypeVar("_ScalarT", bound=numpy.generic)
_ShapeLike = SupportsIndex | Sequence[SupportsIndex]

class SharedArray(numpy.ndarray[Any, Any]): ...

@overload
def shared_array(
    shape: _ShapeLike, *, order: Literal["C", "F"] = "C"
) -> NDArray[numpy.float64]: ...
@overload
def shared_array(
    shape: _ShapeLike,
    dtype: type[_ScalarT] | numpy.dtype[_ScalarT],
    *,
    order: Literal["C", "F"] = "C",
) -> NDArray[_ScalarT]: ...
@overload
def shared_array(
    shape: _ShapeLike, dtype: DTypeLike = ..., *, order: Literal["C", "F"] = "C"
) -> NDArray[Any]: ...
@overload
def share(array: NDArray[_ScalarT]) -> NDArray[_ScalarT]: ...
@overload
def share(array: ArrayLike) -> NDArray[Any]: ...
