import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, TiffImagePlugin

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.pose.images import read_image, read_size

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 100, 50]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 60], [128, 200], [254, 255]], np.uint8)


def saved(image, file_format='PNG', **more):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **more)
    return buffer.getvalue()


def grey3(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, 2)


def tiff_of_12_bits(values):
    """Two pixels, which Pillow does not write."""
    tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3))
    entries = [struct.pack('<HHII', tag, 3, 1, value) for tag, value in tags]
    return struct.pack('<2sHIH', b'II', 42, 8, len(tags)) + b''.join(entries) + bytes(4) + values


def clear_palette():
    image = Image.fromarray(np.array([[0, 1], [2, 3], [1, 0]], np.uint8), 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return image


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        pytest.param(RGB, RGB, id='array'),
        pytest.param(RGB[:, ::-1], RGB[:, ::-1], id='array with a negative stride'),
        pytest.param(GREY, grey3(GREY), id='grey array'),
        pytest.param(GREY[..., None], grey3(GREY), id='grey array with a channel'),
        pytest.param(GREY > 100, grey3((GREY > 100) * 255), id='boolean array'),
        pytest.param(GREY.astype(np.uint16) * 257, grey3(GREY), id='uint16 array'),
        pytest.param((GREY.astype(np.uint16) * 257).astype('>u2'), grey3(GREY), id='big-endian uint16 array'),
        pytest.param(GREY.astype(np.int64), grey3(GREY), id='int64 array of 8-bit values'),
        pytest.param(RGB / 255.0, RGB, id='float array'),
        pytest.param((RGB / 255.0).astype(np.float16), RGB, id='half array'),
        pytest.param(np.dstack([RGB, np.full((3, 2), 255, np.uint8)]), RGB, id='opaque RGBA array'),
        pytest.param(np.dstack([RGB, np.zeros((3, 2), np.uint8)]), np.full_like(RGB, 255), id='clear RGBA array'),
        pytest.param(torch.tensor(RGB).permute(2, 0, 1), RGB, id='tensor'),
        pytest.param(torch.tensor(RGB / 255.0).permute(2, 0, 1).requires_grad_(), RGB, id='tensor with gradient'),
        pytest.param((torch.tensor(RGB) > 99).permute(2, 0, 1), (RGB > 99) * 255, id='boolean tensor'),
        pytest.param(torch.tensor(GREY)[None], grey3(GREY), id='grey tensor'),
        pytest.param(torch.tensor(np.tile(RGB, (3, 4, 1))), np.tile(RGB, (3, 4, 1)), id='tensor with channels last'),
        pytest.param(torch.tensor(GREY / 255.0, dtype=torch.bfloat16), None, id='bfloat16 tensor'),
        pytest.param(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3)), id='one pixel'),
        pytest.param(Image.fromarray(RGB), RGB, id='PIL'),
        pytest.param(saved(Image.fromarray(RGB)), RGB, id='bytes'),
        pytest.param(memoryview(saved(Image.fromarray(RGB))), RGB, id='memoryview'),
        pytest.param(io.BytesIO(saved(Image.fromarray(RGB))), RGB, id='file object'),
        pytest.param(Image.fromarray(GREY), grey3(GREY), id='PIL grey'),
        pytest.param(Image.fromarray(GREY).convert('LA'), grey3(GREY), id='PIL grey with alpha'),
        pytest.param(Image.fromarray(GREY > 100), grey3((GREY > 100) * 255), id='PIL 1-bit'),
        pytest.param(Image.fromarray(GREY.astype(np.uint16) * 257), grey3(GREY), id='PIL I;16'),
        pytest.param(saved(Image.fromarray(GREY.astype(np.uint16) * 257)), grey3(GREY), id='16-bit PNG'),
        pytest.param(
            saved(Image.fromarray(np.array([[40, 255]], np.uint16))),
            np.array([[[0] * 3, [1] * 3]]),
            id='dark 16-bit PNG',
        ),
        pytest.param(tiff_of_12_bits(b'\x7f\xff\xff'), np.array([[[127] * 3, [255] * 3]]), id='12-bit TIFF'),
        pytest.param(Image.fromarray(GREY.astype(np.int32)), grey3(GREY), id='PIL I with 8-bit values'),
        pytest.param(Image.fromarray(GREY.astype(np.int32) * 257), grey3(GREY), id='PIL I with 16-bit values'),
        pytest.param(Image.fromarray((GREY / 255).astype(np.float32)), grey3(GREY), id='PIL float'),
        pytest.param(
            clear_palette(),
            np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9] * 3], [[0, 255, 0], [255, 0, 0]]]),
            id='palette',
        ),
        pytest.param(
            saved(clear_palette(), transparency=1),
            np.array([[[255, 0, 0], [255] * 3], [[0, 0, 255], [9] * 3], [[255] * 3, [255, 0, 0]]]),
            id='palette with a clear colour',
        ),
        pytest.param(
            saved(Image.fromarray(RGB), transparency=(255, 0, 0)),
            np.where((RGB == (255, 0, 0)).all(-1, keepdims=True), 255, RGB),
            id='RGB with a clear colour',
        ),
        pytest.param(saved(Image.fromarray(RGB).convert('CMYK'), 'TIFF'), RGB, id='CMYK'),
        pytest.param(
            saved(Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).convert('CMYK'), 'JPEG'),
            np.full((8, 8, 3), 90),
            id='CMYK JPEG',
        ),
        pytest.param(Image.fromarray(RGB).convert('RGBX'), RGB, id='RGBX'),
        pytest.param(
            saved(Image.fromarray(GREY), 'GIF', save_all=True, append_images=[Image.fromarray(GREY // 2)]),
            grey3(GREY),
            id='animation',
        ),
        pytest.param(
            saved(Image.fromarray(RGB), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()),
            RGB,
            id='colour profile',
        ),
    ],
)
def test_every_kind_of_picture_becomes_upright_rgb(source, expected):
    image = read_image(source)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous
    if expected is None:
        expected, tolerance = grey3(GREY), 1
    else:
        tolerance = 0 if image.size < 100 else 2
    assert image.shape == np.shape(expected)
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_half_clear_pixels_are_laid_on_white():
    rgba = np.array([[[0, 0, 0, 128], [255, 0, 0, 51]]], np.uint8)
    for source in (rgba, Image.fromarray(rgba), saved(Image.fromarray(rgba)), torch.tensor(rgba).permute(2, 0, 1)):
        np.testing.assert_allclose(read_image(source), [[[127, 127, 127], [255, 204, 204]]], atol=1)


def test_a_clear_value_of_a_16_bit_png_is_white():
    values = np.array([[1000, 65535, 0]], np.uint16)
    image = read_image(saved(Image.fromarray(values), transparency=1000))
    assert image[0, :, 0].tolist() == [255, 255, 0]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_undone(orientation):
    # what each orientation did to an upright picture, from the EXIF standard
    stored = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(read_image(data), RGB)
    np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), RGB)


def test_broken_exif_and_a_wrong_extension_do_not_matter(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(saved(Image.fromarray(RGB), exif=b'Exif\0\0MM\0*\xff\xff\xff\xff'))
    np.testing.assert_array_equal(read_image(path), RGB)
    np.testing.assert_array_equal(read_image(str(path)), RGB)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (np.zeros((4, 4, 3)) * np.nan, 'NaN'),
        (np.full((4, 4, 3), np.inf), 'infinite'),
        (np.full((4, 4, 3), 200.0), r'0\.\.1'),
        (np.full((4, 4, 3), -1.5), r'0\.\.1'),
        (np.full((4, 4, 3), 300), 'int64'),
        (np.full((4, 4, 3), -1), 'int64'),
        (np.full((4, 4, 3), 200, np.uint16), 'largest value is 200'),
        (np.zeros((4, 4, 3), complex), 'complex'),
        (np.array([['a', 'b']]), 'expected uint8'),
        (np.zeros((3, 40, 50), np.uint8), 'channels first'),
        (np.zeros((2, 40, 50, 3), np.uint8), 'list'),
        (np.zeros((40, 50, 5), np.uint8), 'expected'),
        (np.zeros(40, np.uint8), 'expected'),
        (np.zeros((0, 5, 3), np.uint8), 'empty'),
        (torch.zeros(2, 3, 4, 4), 'list'),
        (torch.full((3, 4, 4), 2.0), r'0\.\.1'),
        (torch.zeros(3, 0, 4), 'empty'),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), '32-bit'),
        (Image.fromarray(np.full((2, 2), 255.0, np.float32)), r'0\.\.1'),
        (Image.new('RGB', (0, 3)), 'empty'),
        (b'not a picture', 'not an image'),
        (saved(Image.effect_noise((64, 64), 50))[:2000], 'cut off'),
        (saved(Image.effect_noise((64, 64), 50), 'JPEG')[:1500], 'cut off'),
        (b'', 'no bytes'),
        ('https://example.org/a.jpg', 'download'),
        ('nowhere/at/all.jpg', 'no file'),
        ('.', 'folder'),
        ('a\0b.jpg', 'cannot be read'),
        (None, 'NoneType'),
        ([1, 2], 'list'),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(source, message):
    with pytest.raises(UserError, match=message):
        read_image(source)


@pytest.mark.parametrize('tags', [{254: 1}, {50706: b'\x01\x04\0\0'}])
def test_the_preview_of_a_raw_photo_is_not_taken_for_the_photo(tmp_path, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    Image.new('RGB', (16, 12)).save(tmp_path / 'a.nef', 'TIFF', tiffinfo=info)
    with pytest.raises(UserError, match='raw photo'):
        read_image(tmp_path / 'a.nef')


def test_huge_pictures_are_refused_before_they_are_decoded():
    data = saved(Image.new('1', (1000, 500)))
    with pytest.raises(UserError, match='1000x500 pixels, the limit is 499999'):
        read_image(data, max_pixels=499_999)
    header = bytearray(saved(Image.new('1', (8, 8))))
    header[16:24] = (60000).to_bytes(4, 'big') * 2
    # the header's checksum is wrong now, so it is made right
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, 'big')
    with pytest.raises(UserError, match='too large'):
        read_image(bytes(header))


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('turn', [1, 6])
def test_large_photos_are_decoded_smaller_and_upright(tmp_path, suffix, turn):
    ramp = np.linspace(0, 255, 400, dtype=np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (300, 400, 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f'a.{suffix}', exif=exif, quality=95)
    whole = read_image(tmp_path / f'a.{suffix}')
    small = read_image(tmp_path / f'a.{suffix}', shrink_above=30_000)
    assert small.shape == ((150, 200, 3) if turn == 1 else (200, 150, 3))
    expected = np.asarray(Image.fromarray(whole).reduce(2)).astype(int)
    assert np.abs(small - expected).max() < 4
    assert read_size(tmp_path / f'a.{suffix}') == whole.shape[1::-1]
    assert read_image(tmp_path / f'a.{suffix}', shrink_above=120_000).shape == whole.shape


@pytest.mark.parametrize(
    ('mode', 'subsampling', 'progressive', 'shape'),
    [
        ('RGB', 0, True, (75, 100, 3)),  # whose coefficients alone take six bytes a pixel
        ('RGB', 0, False, (150, 200, 3)),
        ('RGB', 2, True, (150, 200, 3)),
        ('L', 0, True, (150, 200, 3)),
    ],
)
def test_large_progressive_photos_of_full_colour_are_decoded_smaller_still(mode, subsampling, progressive, shape):
    image = Image.new('RGB', (400, 300), (200, 30, 90)).convert(mode)
    data = saved(image, 'JPEG', subsampling=subsampling, progressive=progressive)
    small = read_image(data, shrink_above=30_000)
    assert small.shape == shape and np.abs(small - read_image(data)[0, 0].astype(int)).max() < 3


def test_too_little_memory_is_not_called_damage(monkeypatch):
    data = saved(Image.new('RGB', (8, 8)))

    def load(image):
        raise MemoryError

    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', load)
    with pytest.raises(UserError, match='more memory than there is: 8x8 pixels of PNG'):
        read_image(data)


@pytest.mark.parametrize('mode', ['1', 'P', 'P with alpha', 'LA', 'RGBA', 'I;16', 'CMYK'])
def test_large_photos_of_any_mode_are_decoded_smaller(tmp_path, mode, monkeypatch):
    monkeypatch.setattr('widehrnet_zoo.pose.images._STRIP', 400 * 30)
    pixels = np.zeros((301, 400, 3), np.uint8)
    pixels[40:, 100:] = (250, 200, 90)
    image = Image.fromarray(pixels)
    file, options = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png'), {}
    if mode == 'I;16':
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode.startswith('P'):
        image = image.quantize(2)
        options = {'transparency': bytes([100, 200])} if 'alpha' in mode else {}
    elif mode != 'CMYK':
        image = image.convert(mode)
        if mode in ('LA', 'RGBA'):
            image.putalpha(120)
    else:
        image = image.convert(mode)
    image.save(file, **options)
    whole = Image.fromarray(read_image(file))
    small = read_image(file, shrink_above=30_000)
    assert small.shape == (101, 134, 3)
    assert np.abs(small - np.asarray(whole.reduce(3)).astype(int)).max() < 3


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif'])
def test_the_size_is_that_of_the_upright_image(tmp_path, suffix, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new('RGB', (60, 40)).save(tmp_path / f'a.{suffix}', exif=exif)
    height, width, _ = read_image(tmp_path / f'a.{suffix}').shape
    assert read_size(tmp_path / f'a.{suffix}') == (width, height) == ((60, 40) if turn < 5 else (40, 60))


def test_heic_photos_are_read_where_pillow_heif_is_installed(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    heif.register_heif_opener()
    Image.new('RGB', (64, 96), (200, 30, 30)).save(tmp_path / 'a.heic')
    image = read_image(tmp_path / 'a.heic')
    assert image.shape == (96, 64, 3) and np.abs(image.mean((0, 1)) - (200, 30, 30)).max() < 6
    assert read_size(tmp_path / 'a.heic') == (64, 96)


def save_noise(file, mode, turn):
    image = Image.effect_noise((402, 301), 90).convert(mode)
    if mode == 'RGBA':
        image.putalpha(100)
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(file, exif=exif)


@pytest.mark.parametrize('turn', [1, 6])
@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L'])
def test_a_large_heic_has_the_pixels_that_pillow_gives(tmp_path, monkeypatch, mode, turn):
    heif = pytest.importorskip('pillow_heif')
    heif.register_heif_opener()
    monkeypatch.setattr('widehrnet_zoo.pose.images._STRIP', 402 * 30)
    save_noise(tmp_path / 'a.heic', mode, turn)
    with monkeypatch.context() as without_ours:
        without_ours.setattr('widehrnet_zoo.pose.images.decode_heic', lambda *args: None)
        expected = read_image(tmp_path / 'a.heic', shrink_above=30_000)
    if mode != 'L':
        monkeypatch.setattr('pillow_heif.HeifImageFile.load', None)
    assert (read_image(tmp_path / 'a.heic', shrink_above=30_000) == expected).all()


@pytest.mark.skipif(sys.platform == 'win32', reason='Pillow keeps libavif inside there')
@pytest.mark.parametrize('turn', [1, 6])
@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_a_large_avif_has_the_pixels_that_pillow_gives(tmp_path, monkeypatch, mode, turn):
    pytest.importorskip('PIL._avif', reason='Pillow before 11.3')
    save_noise(tmp_path / 'a.avif', mode, turn)
    with monkeypatch.context() as without_ours:
        without_ours.setattr('widehrnet_zoo.pose.images.decode_avif', lambda *args: None)
        expected = read_image(tmp_path / 'a.avif', shrink_above=30_000)
    with monkeypatch.context() as without_pillow:
        without_pillow.setattr('PIL.AvifImagePlugin.AvifImageFile.load', None)
        assert (read_image(tmp_path / 'a.avif', shrink_above=30_000) == expected).all()
    data = bytearray((tmp_path / 'a.avif').read_bytes())
    begin = data.index(b'mdat') + 4
    data[begin : begin + 200] = bytes(200)
    with pytest.raises(UserError, match='damaged or cut off'):
        read_image(bytes(data), shrink_above=30_000)


@pytest.mark.skipif(sys.platform == 'win32', reason='Pillow keeps libwebp inside there')
@pytest.mark.parametrize('turn', [1, 6])
@pytest.mark.parametrize('options', [{'quality': 90}, {'lossless': True}, {'alpha': 100}])
@pytest.mark.parametrize('shrink_above', [None, 30_000])
def test_large_webp_has_the_pixels_that_pillow_gives(tmp_path, monkeypatch, turn, options, shrink_above):
    monkeypatch.setattr('widehrnet_zoo.pose.images._STRIP', 400 * 30)
    image = Image.effect_noise((400, 301), 90).resize((100, 76)).resize((400, 301)).convert('RGB')
    options = dict(options)
    if 'alpha' in options:
        image.putalpha(options.pop('alpha'))
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / 'a.webp', exif=exif, **options)
    expected = read_image(tmp_path / 'a.webp', shrink_above=shrink_above)
    monkeypatch.setattr('widehrnet_zoo.pose.webp.LARGE', 1000)
    with monkeypatch.context() as without_pillow:
        without_pillow.setattr('PIL.WebPImagePlugin.WebPImageFile.load', None)
        found = read_image(tmp_path / 'a.webp', shrink_above=shrink_above)
    if shrink_above:
        # of a side that three do not divide libwebp takes means of equal width, Pillow a narrower one at the border
        assert found.shape == expected.shape
        whole = Image.fromarray(read_image(tmp_path / 'a.webp'))
        off = np.abs(found - np.asarray(whole.resize(found.shape[1::-1], Image.Resampling.BOX)).astype(int))
        assert off.max() <= 12 and off.mean() < 2
    else:
        assert (found == expected).all()
    monkeypatch.setattr('ctypes.CDLL', lambda name: None)  # as where Pillow keeps libwebp inside
    assert (read_image((tmp_path / 'a.webp').read_bytes(), shrink_above=shrink_above) == expected).all()


def test_large_animations_and_damaged_webp_are_left_to_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr('widehrnet_zoo.pose.webp.LARGE', 1000)
    first = Image.new('RGB', (64, 48), (200, 30, 90))
    moving = saved(first, 'WEBP', save_all=True, append_images=[Image.new('RGB', (64, 48))], lossless=True)
    assert (read_image(moving) == (200, 30, 90)).all()
    damaged = bytearray(saved(Image.effect_noise((64, 48), 90), 'WEBP', lossless=True))
    damaged[40:400] = bytes(360)
    with pytest.raises(UserError, match='damaged or cut off'):
        read_image(bytes(damaged))
