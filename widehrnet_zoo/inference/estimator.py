"""One photo, or many, to keypoints."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..detection import Detector
from ..engines.fork import check_fork
from ..engines.opening import HeatmapBackend, open_backend, torch_module
from ..errors import UserError
from ..pose.arrays import Arrays, as_float, cpu_to_numpy, to_numpy
from ..pose.box_maps import gives_boxes
from ..pose.crops import MEAN, STD, STRIDE, check_input_size, normalise, padding_of, three_numbers
from ..pose.decoding import DECODERS, decode_heatmaps
from ..pose.flip import check_flip_test, flip_heatmaps
from ..pose.images import ImageSource
from ..pose.results import PoseResult
from ..pose.score_map import score_map_of
from ..pose.skeletons import Skeleton
from .detectors import Detectors
from .people import Limits, choose_people, likely_people
from .photo import Photo
from .stream import Finder, Found, photos_of, stream

if TYPE_CHECKING:
    import torch
    from torch import nn

# what other libraries call the size
_SIZES = {'image_size', 'img_size', 'imgsz', 'input_size'}


class PoseEstimator:
    """Finds the keypoints of people in images.

    Attributes:
        backend: What turns crops into heatmaps.
        skeleton: What the keypoints are.
        size: Height and width of the network's input.
        padding: Growth of a box to the network's view.
        score_map: From the peaks of heatmaps to the chance that a keypoint is right, of weights that have one.
        limits: Which of the people that the detector finds are kept.

    Args:
        model: A variant, `variant.tag`, `hf-hub:org/name`, `local-dir:FOLDER` or a folder, loaded with its weights; a
            file of weights; an exported file or folder (ONNX, OpenVINO, kernels, ...), of which the first three need no
            PyTorch; or a module. By default `widehrnet_18_attn`, whose weights ship.
        weights: File of weights to load instead: `.safetensors`, or an official `.pth`. Without `model` the variant is
            found from the file.
        device: Where a torch model runs. By default a module stays where it is, anything else goes to CUDA, MPS or
            the CPU, the first there is. For an ONNX file a provider of the installed ONNX Runtime, such as `'cuda'`; by
            default the CPU, on which the other exported files run.
        backend: Instead of `model`: a `HeatmapBackend`, or any callable from normalised float32 arrays (B, 3, H, W) to
            heatmaps (B, K, H/4, W/4), which needs `size` and `skeleton` beside it.
        size: Height and width of the input, multiples of 32, instead of the model's own.
        skeleton: What the keypoints are, instead of what the model says.
        mean: Of the input, RGB in 0..1, instead of the model's own.
        std: Likewise.
        padding: Growth of a person's box to the network's view, instead of the model's own: 1.25, unless the model
            learnt another.
        decoder: How keypoints are read off heatmaps: see `decode_heatmaps`. `'dark'` is the most exact for our weights;
            the published figures are by `'quarter'`.
        flip_test: Average with the mirrored crop; twice the work.
        batch_size: Crops per forward pass, of one image or of several.
        bf16: Products in bfloat16: by the kernels where they can, or else in PyTorch's autocast.
        int8: Products of 8-bit integers, by the kernels, on CPUs with AVX512-VNNI: faster than `bf16`, and less exact.
        engine: What runs a network that is not an exported file: `'kernels'`, our own for CPUs; `'deployed'`,
            PyTorch with folded convolutions; `'graphs'`, PyTorch in half precision as CUDA graphs; `'eager'`, PyTorch
            on the network as it is; by default the fastest for the device: the kernels on a CPU, graphs on CUDA. All
            but `'graphs'` are equal within rounding; its error is stated by `widehrnet bench --device cuda`.
        detector: Finds the people in images that come without boxes: a name as `open_detector` takes it, such as
            `'default'` (the person finder that ships), or any callable, as `Detector` says; `None` takes the whole
            image as one person's box. By default, `'auto'`: the finder that was exported with the model, if one was;
            else `'default'` where the keypoints are a human skeleton (COCO, MPII) and the finder is in the
            installation; else `None`.
        **limits: Of `Limits`: `box_threshold`, `pose_threshold`, `max_people`, `min_size`, `largest`,
            `second_look`, `same_person`.

    Raises:
        UserError: If the model, its weights, the device, the detector or an option cannot be had, or do not fit each
            other.
    """

    def __init__(
        self,
        model: 'str | Path | nn.Module | None' = None,
        weights: str | Path | None = None,
        device: 'str | torch.device | None' = None,
        *,
        backend: HeatmapBackend | Callable[..., Any] | None = None,
        size: tuple[int, int] | None = None,
        skeleton: Skeleton | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        padding: float | None = None,
        decoder: str = 'dark',
        flip_test: bool = False,
        batch_size: int = 16,
        bf16: bool = False,
        int8: bool = False,
        engine: str = 'auto',
        detector: str | Detector | None = 'auto',
        **limits: Any,
    ):
        for name in sorted(_SIZES & set(limits)):
            raise UserError(f'{name} is called size here: size=(height, width), multiples of 32.')
        self.limits = Limits().changed(limits)
        if backend is None:
            backend = open_backend(model, weights, device, size, skeleton, bf16, engine, int8)
        elif model is not None or weights is not None or bf16 or int8 or engine != 'auto':
            raise UserError(
                'A backend stands in place of model, weights, bf16, int8 and engine: give one or the other.'
            )
        self.backend: Any = backend
        found_size = size or getattr(backend, 'size', None)
        found_skeleton = skeleton or getattr(backend, 'skeleton', None)
        if found_size is None or found_skeleton is None:
            raise UserError('A backend must say its size=(height, width) and its skeleton, or they must be given.')
        if gives_boxes(found_skeleton):
            raise UserError(
                'This model finds people, not keypoints: give PoseEstimator a pose model, and this one to '
                'widehrnet_zoo.detection.PersonFinder.'
            )
        if not getattr(backend, 'gives_heatmaps', True):
            name = getattr(backend, 'path', Path('this')).name
            raise UserError(
                f'{name} gives keypoints alone, and PoseEstimator needs heatmaps: export it again to ONNX or OpenVINO, '
                'or without --pipeline.'
            )
        self.size = check_input_size(found_size)
        self.skeleton: Skeleton = found_skeleton
        self.mean = three_numbers(getattr(backend, 'mean', MEAN) if mean is None else mean, 'mean', -1000)
        self.std = three_numbers(getattr(backend, 'std', STD) if std is None else std, 'std', 1e-6)
        self.padding = padding_of(backend if padding is None else SimpleNamespace(padding=padding))
        self.score_map = score_map_of(backend)
        self.decoder = decoder
        self.flip_test = flip_test
        self.batch_size = batch_size
        self._check_options(decoder, flip_test, batch_size)
        self._detectors = Detectors(detector, backend, self.skeleton, engine, self.limits)

    def detector(self, detector: str | Detector | None = 'auto', limits: Limits | None = None) -> Detector | None:
        """The detector that images without boxes are shown to, opened at its first use.

        Args:
            detector: Instead of the estimator's own, which `'auto'` stands for.
            limits: For its threshold; the estimator's own by default.

        Returns:
            The detector, or `None` where the whole image is one person's box.

        Raises:
            UserError: If there is no such detector, or it cannot be had.
        """
        return self._detectors.open(detector, limits or self.limits)

    @property
    def model(self) -> 'nn.Module':
        """The plain network, whatever engine runs it.

        Raises:
            UserError: If an exported file or another backend runs in its place.
        """
        module = torch_module(self.backend)
        if module is None:
            raise UserError(f'{type(self.backend).__name__} runs here, there is no torch module.')
        return module

    @property
    def device(self) -> 'torch.device | str':
        """Where the network runs."""
        return getattr(self.backend, 'device', 'cpu')

    @overload
    def __call__(self, image: ImageSource, boxes: Any = None, box_scores: Any = None, **options: Any) -> PoseResult: ...

    @overload
    def __call__(
        self, image: Sequence[ImageSource], boxes: Any = None, box_scores: Any = None, **options: Any
    ) -> list[PoseResult]: ...

    def __call__(self, image: Any, boxes: Any = None, box_scores: Any = None, **options: Any) -> Any:
        """Find the keypoints of the people in an image, or in each of several.

        Args:
            image: An image as `read_image` takes it; a list or tuple of them; or a 4-dimensional array or tensor.
            boxes: People of one image, (4,) or (N, 4) x1, y1, x2, y2 in pixels of the upright image; for several
                images a list with the boxes of each, `None` among them where there are none. Without boxes the
                detector finds everyone. Without a detector the whole image is one box; where enough is found, a
                second look at what was found gives the result.
            box_scores: (N,) scores of the boxes, for several images a list of them; 1 by default.
            **options: Of `look`, for this call: `detector`, `max_people`, `decoder`, `flip_test`, `batch_size`, ...

        Returns:
            The result, or a list of them in the order of the images. Where nobody is found it has no people.

        Raises:
            UserError: If an image cannot be read, boxes are wrong, or the model's heatmaps are not what they should.
        """
        if getattr(image, 'ndim', None) == 4:
            image = list(image)
        if not isinstance(image, (list, tuple)):
            if isinstance(image, (Iterator, Set, Mapping)) and not hasattr(image, 'read'):
                raise UserError(
                    f'Give several images as a list, or this {type(image).__name__} to `stream`, which yields results '
                    'as they come.'
                )
            return next(self.look([Photo(image, boxes, box_scores)], workers=0, **options)).result
        for name, given in (('boxes', boxes), ('box_scores', box_scores)):
            if given is not None and not isinstance(given, (list, tuple)):
                raise UserError(f'For {len(image)} images give {name} as a list of {len(image)}, one entry for each.')
        return list(self.stream(image, boxes, box_scores, **options))

    def stream(
        self,
        images: Iterable[ImageSource],
        boxes: Iterable[Any] | None = None,
        box_scores: Iterable[Any] | None = None,
        **options: Any,
    ) -> Iterator[PoseResult]:
        """Results of images as they come, in their order; a few are read ahead in threads.

        Args:
            images: Images.
            boxes: For each image its boxes, or `None`; see `__call__`.
            box_scores: For each image the scores of its boxes, or `None`.
            **options: As for `look`.

        Returns:
            An iterator with one result for each image.

        Raises:
            UserError: As `__call__`; if this is one image; or if there are fewer boxes or scores than images.
        """
        one = isinstance(images, (str, bytes, Path)) or hasattr(images, 'read') or getattr(images, 'ndim', 4) in (2, 3)
        if one or not isinstance(images, Iterable):
            raise UserError(
                f'`stream` takes several images, in a list, a generator or the like, not one {type(images).__name__}: '
                'call the estimator itself with one image.'
            )
        return (found.result for found in self.look(photos_of(images, boxes, box_scores), **options))

    def look(
        self,
        photos: Iterable[Photo],
        *,
        decoder: str | None = None,
        flip_test: bool | None = None,
        shift: bool = True,
        batch_size: int | None = None,
        padding: float | None = None,
        peaks: bool = False,
        detector: str | Detector | None = 'auto',
        workers: int = 2,
        inside: bool = True,
        skip: Callable[[int, UserError], None] | None = None,
        **limits: Any,
    ) -> Iterator[Found]:
        """Results of photos as they come, with their images; all other ways to predict go through this one.

        Args:
            photos: Images with their boxes and the scores of these.
            decoder: Instead of the estimator's own.
            flip_test: Likewise.
            shift: Move the mirrored heatmaps by one pixel, as `flip_heatmaps` says.
            batch_size: Instead of the estimator's own.
            padding: Likewise.
            peaks: Leave scores the peaks of heatmaps, as the published protocols take them, even where the weights have
                a map to chances.
            detector: Finds people in the photos that have no boxes: a name, a callable, or `None` for none; by default
                the estimator's own.
            workers: Threads that read and crop photos; 0 for none.
            inside: Refuse boxes that lie outside their photo or look like fractions of it.
            skip: Called with the place of a photo that fails and its error, instead of raising it.
            **limits: Of `Limits`, instead of the estimator's own.

        Yields:
            One `Found` for each photo, in their order; see `widehrnet_zoo.inference.stream`.

        Raises:
            UserError: As `__call__`.
        """
        decoder = self.decoder if decoder is None else decoder
        flip_test = self.flip_test if flip_test is None else flip_test
        batch_size = self.batch_size if batch_size is None else batch_size
        self._check_options(decoder, flip_test, batch_size)
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
            raise UserError(f'The number of workers must be a whole number from 0, not {workers!r}.')
        kept, chances = self.limits.changed(limits), self.score_map is not None
        return stream(
            photos,
            lambda crops: self._forward(crops, decoder, flip_test, shift, peaks),
            self.skeleton,
            self.size,
            padding=self.padding if padding is None else padding,
            batch_size=batch_size,
            finder=self._finder(detector, kept),
            keep=lambda result: choose_people(result, kept, chances),
            again=(lambda result: likely_people(result, kept, chances)) if kept.second_look else None,
            workers=workers,
            inside=inside,
            skip=skip,
        )

    def _finder(self, detector: str | Detector | None, limits: Limits) -> Finder | None:
        return self._detectors.finder(detector, limits)

    def heatmaps(self, crops: npt.NDArray[np.uint8], flip_test: bool = False, shift: bool = True) -> Arrays:
        """Heatmaps of crops.

        Args:
            crops: uint8 (B, H, W, 3) of the network's size, as from `crop_people`.
            flip_test: Average with those of the mirrored crops.
            shift: Move the mirrored heatmaps by one pixel first, as `flip_heatmaps` says.

        Returns:
            float32 (B, K, H/4, W/4): a tensor on the network's device where PyTorch runs it, else a NumPy array.

        Raises:
            UserError: If the model gives something else.
        """
        heatmaps = self._run(crops)
        if flip_test:
            mirrored = self._run(np.ascontiguousarray(crops[:, :, ::-1]))
            heatmaps = (heatmaps + flip_heatmaps(mirrored, self.skeleton.flip_order, shift)) / 2
        return heatmaps

    def _run(self, crops: npt.NDArray[np.uint8]) -> Arrays:
        run = getattr(self.backend, 'from_crops', None)
        if run is not None:
            heatmaps = run(crops, self.mean, self.std)
        else:
            check_fork()
            heatmaps = self.backend(normalise(crops, self.mean, self.std))
        if not hasattr(heatmaps, 'detach'):
            heatmaps = np.asarray(heatmaps)
        expected = (len(crops), self.skeleton.num_keypoints, self.size[0] // STRIDE, self.size[1] // STRIDE)
        if tuple(heatmaps.shape) != expected:
            raise UserError(
                f'The model gives {tuple(heatmaps.shape)} for {len(crops)} crops of {self.size[0]}x{self.size[1]}; '
                f'expected heatmaps {expected}.'
            )
        return as_float(heatmaps)

    def _forward(
        self,
        crops: npt.NDArray[np.uint8],
        decoder: str,
        flip_test: bool,
        shift: bool,
        peaks: bool,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        points, scores = decode_heatmaps(cpu_to_numpy(self.heatmaps(crops, flip_test, shift)), decoder)
        found, sure = to_numpy(points) * STRIDE, to_numpy(scores)
        if not np.isfinite(sure).all():
            raise UserError(
                'The model gives NaN or infinite heatmaps: its weights are damaged, or overflow in low precision, '
                "which engine='eager' without bf16 does not use."
            )
        return found, sure if peaks or self.score_map is None else self.score_map(sure)

    def _check_options(self, decoder: str, flip_test: bool, batch_size: int) -> None:
        if decoder not in DECODERS:
            raise UserError(f'There is no decoder {decoder!r}: choose {", ".join(DECODERS)}.')
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise UserError(f'The batch size must be a whole number from 1, not {batch_size!r}.')
        if flip_test:
            check_flip_test(self.skeleton)
