import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharedgrad.data import read_image
from sharedgrad.data.collection import read_images
from sharedgrad.errors import ConfigError, DataError
from tests.data.conftest import Paint

RNG = np.random.default_rng(3)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_grey_and_colour_pixels_are_read_as_they_are(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    colour = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "g.png", grey), 1, (4, 6))[0], grey)
    np.testing.assert_array_equal(read_image(save(tmp_path / "c.png", colour), 3, (4, 6)), colour.transpose(2, 0, 1))


def test_channels_follow_the_model(paint: Paint) -> None:
    grey, colour = paint("g.png", 100), paint("c.png", (255, 0, 0), mode="RGB")
    assert np.unique(read_image(grey, 3, (4, 6))).tolist() == [100]
    assert np.unique(read_image(colour, 1, (4, 6))).tolist() == [76]
    with pytest.raises(DataError, match="cannot give 4 channels"):
        read_image(grey, 4, (4, 6))


def test_resizes_to_height_and_width(paint: Paint) -> None:
    assert read_image(paint("a.png", size=(20, 30)), 1, (3, 7)).shape == (1, 3, 7)


def test_shrinking_averages_instead_of_dropping_pixels(tmp_path: Path) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    small = read_image(save(tmp_path / "stripes.png", stripes), 1, (8, 8))
    assert np.abs(small.astype(int) - 127).max() < 20


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.png", pixels, exif=exif)
    np.testing.assert_array_equal(read_image(path, 1, (6, 4))[0], np.rot90(pixels, -1))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", np.array([[0, 256, 32768, 65535]], np.uint16))
    assert read_image(path, 1, (1, 4)).ravel().tolist() == [0, 1, 128, 255]


def test_bilevel_palette_and_alpha_images(tmp_path: Path, paint: Paint) -> None:
    assert np.unique(read_image(paint("bits.png", 1, mode="1"), 1, (4, 6))).tolist() == [255]
    assert read_image(paint("alpha.png", (9, 8, 7, 255), mode="RGBA"), 3, (4, 6))[:, 0, 0].tolist() == [9, 8, 7]
    assert read_image(paint("grey.png", (9, 255), mode="LA"), 1, (4, 6))[0, 0, 0] == 9
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "palette.png", 3, (4, 6), "black")[:, 0, 0].tolist() == [5, 10, 15]


@pytest.mark.parametrize(("background", "under"), [("white", 255), ("black", 0)])
def test_transparent_images_are_laid_on_a_background(tmp_path: Path, paint: Paint, background: str, under: int) -> None:
    def first(path: Path, channels: int) -> list[int]:
        return read_image(path, channels, (4, 6), background)[:, 0, 0].tolist()

    assert first(paint("clear.png", (9, 8, 7, 0), mode="RGBA"), 3) == [under] * 3
    assert first(paint("half.png", (9, 8, 7, 0), mode="RGBA"), 1) == [under]
    assert first(paint("grey.png", (9, 0), mode="LA"), 1) == [under]
    assert first(paint("key.png", 9, transparency=9), 1) == [under]
    assert first(paint("colour.png", (1, 2, 3), mode="RGB", transparency=(1, 2, 3)), 3) == [under] * 3
    deep = save(tmp_path / "deep.png", np.full((4, 6), 300, np.uint16), transparency=300)
    assert first(deep, 1) == [under]
    palette = Image.new("P", (6, 4), 0)
    palette.putpalette([9, 8, 7])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert first(tmp_path / "palette.png", 3) == [under] * 3


def test_there_are_two_backgrounds(paint: Paint) -> None:
    with pytest.raises(ConfigError, match="background: expected white or black, got 'pink'"):
        read_image(paint("a.png"), 1, (4, 6), "pink")


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (6, 4), value) for value in (50, 200)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert np.unique(read_image(tmp_path / "two.gif", 1, (4, 6))).tolist() == [50]


class TestUnreadable:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none.png: no such image file"):
            read_image(tmp_path / "none.png", 1, (4, 6))

    @pytest.mark.parametrize("content", [b"", b"hello", bytes(1000)])
    def test_no_image(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"a.png: is not an image of a known format"):
            read_image(tmp_path / "a.png", 1, (4, 6))

    def test_postscript_is_never_interpreted(self, tmp_path: Path) -> None:
        Image.new("RGB", (6, 4)).save(tmp_path / "a.eps")
        (tmp_path / "a.eps").rename(tmp_path / "a.png")
        with pytest.raises(DataError, match="known format"):
            read_image(tmp_path / "a.png", 3, (4, 6))

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp"])
    def test_cut_off_or_garbled(self, suffix: str, tmp_path: Path) -> None:
        path = save(tmp_path / f"a.{suffix}", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=rf"a\.{suffix}: (cannot be read as|is not) an image"):
            read_image(path, 1, (4, 6))

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif"])
    def test_flipped_bytes_end_in_pixels_or_one_line(self, suffix: str, tmp_path: Path) -> None:
        path = save(tmp_path / f"a.{suffix}", RNG.integers(0, 256, (9, 9), dtype=np.uint8))
        content, messages = path.read_bytes(), []
        for _ in range(60):
            changed = bytearray(content)
            changed[RNG.integers(len(content))] ^= int(RNG.integers(1, 256))
            path.write_bytes(changed)
            try:
                assert read_image(path, 1, (4, 6)).shape == (1, 4, 6)
            except DataError as error:
                messages.append(str(error))
        assert messages
        assert not any("\n" in message for message in messages)

    @pytest.mark.parametrize("side", [10_000, 14_000, 2**31 - 1])
    def test_decompression_bomb(self, side: int, tmp_path: Path) -> None:
        (tmp_path / "bomb.png").write_bytes(png(side, side))
        with pytest.raises(DataError, match=r"bomb.png: cannot be read as an image \(Image size .*exceeds limit"):
            read_image(tmp_path / "bomb.png", 1, (4, 6))
        with pytest.raises(DataError, match="exceeds limit"):
            read_images([tmp_path / "bomb.png"], (4, 6))

    def test_unbounded_pixels(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", np.ones((4, 6), np.float32))
        with pytest.raises(DataError, match="32-bit pixels of no fixed range"):
            read_image(path, 1, (4, 6))


def test_filters_of_warnings_are_restored(paint: Paint) -> None:
    before = list(warnings.filters)
    read_image(paint("a.png"), 1, (4, 6))
    assert list(warnings.filters) == before


class TestManyImages:
    def test_order_and_progress_over_several_chunks(self, paint: Paint) -> None:
        paths = [paint(f"{i}.png", i) for i in range(200)]
        seen: list[tuple[int, int]] = []
        x = read_images(paths, None, lambda done, total: seen.append((done, total))).x
        assert x.shape == (200, 1, 4, 6)
        np.testing.assert_array_equal(x[:, 0, 3, 5], np.arange(200))
        assert seen[-1] == (200, 200)
        assert seen == sorted(seen)
        assert 0 < seen[0][0] < 200

    def test_one_colour_image_among_grey_ones_makes_all_rgb(self, paint: Paint) -> None:
        paths = [paint(f"{i}.png", i) for i in range(100)]
        paths.append(paint("c.png", (1, 2, 3), mode="RGB"))
        x = read_images(paths, None).x
        assert x.shape == (101, 3, 4, 6)
        assert x[99, :, 0, 0].tolist() == [99, 99, 99]
        assert x[100, :, 0, 0].tolist() == [1, 2, 3]

    def test_different_sizes_name_both_files_and_the_option(self, paint: Paint) -> None:
        paths = [paint("a.png"), paint("b.png", size=(8, 3))]
        with pytest.raises(DataError, match=r"b.png: is 8 × 3 .*but others are 4 × 6; .*--size"):
            read_images(paths, None)
        assert read_images(paths, (5, 5)).x.shape == (2, 1, 5, 5)

    def test_more_than_memory_names_the_option(self, paint: Paint) -> None:
        with pytest.raises(DataError, match=r"^1 images: needs .* of memory.*--size"):
            read_images([paint("a.png")], (2**25, 2**25))

    def test_interruption_ends_the_reading(self, paint: Paint) -> None:
        paths, seen, threads = [paint("a.png")] * 5000, [], threading.active_count()

        def interrupt(done: int, _: int) -> None:
            seen.append(done)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            read_images(paths, None, interrupt)
        assert len(seen) == 1
        assert threading.active_count() == threads

    def test_all_bad_files_are_named(self, paint: Paint) -> None:
        paths = [paint(f"{i}.png", i) for i in range(150)]
        for bad in (0, 70, 130):
            paths[bad].write_bytes(b"no image")
        with pytest.raises(DataError, match=r"3 of 150 images .*/0\.png, .*/70\.png, .*/130\.png; .* --skip-bad"):
            read_images(paths, None)
        images = read_images(paths, None, skip_bad=True)
        assert np.flatnonzero(~images.kept).tolist() == [0, 70, 130]
        np.testing.assert_array_equal(images.x[:, 0, 0, 0], np.delete(np.arange(150), [0, 70, 130]))

    def test_a_single_bad_file_says_why(self, paint: Paint) -> None:
        paths = [paint("a.png"), paint("b.png")]
        paths[1].write_bytes(b"no image")
        with pytest.raises(DataError, match=r"b\.png: is not an image of a known format; remove .* --skip-bad"):
            read_images(paths, None)

    def test_very_many_bad_files_are_counted(self, paint: Paint) -> None:
        path = paint("a.png")
        path.write_bytes(b"no image")
        with pytest.raises(DataError, match=r"30 of 30 .* and 10 more; "):
            read_images([path] * 30, None)

    def test_transparent_images_are_counted(self, paint: Paint) -> None:
        paths = [paint("a.png", (0, 0), "LA"), paint("b.png", (0, 255), "LA"), paint("c.png")]
        images = read_images(paths, None, background="black")
        assert images.transparent == 1
        assert images.x[:, 0, 0, 0].tolist() == [0, 0, 100]
