"""What a file holds that is not an image jaxad reads, by its first bytes, and what to do about it."""

from __future__ import annotations

_SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the image itself; run `git lfs pull` there"),
    (b"/annex/objects/", "a git-annex pointer, not the image itself; run `git annex get` there"),
    (b"../.git/annex/objects/", "a git-annex pointer, not the image itself; run `git annex get` there"),
    (b"\x00\x05\x16\x07", "the AppleDouble half of a file from a Mac, without pixels; remove it"),
    (b"%PDF", "a PDF document; export its pages as PNG"),
    (b"%!PS", "a PostScript document; export it as PNG"),
    (b"8BPS", "a Photoshop document; export it as PNG"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"\x93NUMPY", "a NumPy array; save it as PNG of 8 or 16 bits"),
    (b"\x89HDF", "an HDF5 file; save its images as PNG"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image; save it as PNG of 8 or 16 bits"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image; save it as PNG"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image; save it as PNG"),
    (b"\xff\x0a", "a JPEG XL image; save it as PNG"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image; save it as PNG"),
    (b"II*\x00", "a TIFF file of a kind that Pillow does not read, e.g. of 16- or 64-bit floats; save it as PNG"),
    (b"MM\x00*", "a TIFF file of a kind that Pillow does not read, e.g. of 16- or 64-bit floats; save it as PNG"),
    (b"II+\x00", "a BigTIFF file that Pillow does not read; save it as PNG"),
    (b"<?xml", "an XML document; remove it"),
    (b"<svg", "a drawing (SVG); export it as PNG"),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}


def described(content: bytes) -> str:
    """What a file is and what to do about it, "" where its first bytes do not tell.

    Git LFS pointers are what a clone without LFS has in place of images; pages of a web server are what a download
    without permission gives.
    """
    if not content:
        return "an empty file; copy it again"
    if not content.strip(b"\0"):
        return "nothing but zero bytes, as an interrupted copy leaves them; copy it again"
    head = content[:512].lstrip()
    for sign, words in _SIGNS:
        if content.startswith(sign) or head.startswith(sign):
            return words
    if content[4:8] == b"ftyp":
        format = _BRANDS.get(content[8:12])
        return (
            f"{'an' if format == 'AVIF' else 'a'} {format} image; save it as PNG" if format else "a film; save frames"
        )
    if head[:64].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, as a failed download leaves it; fetch the image again"
    if head.startswith((b"{", b"[")):
        return "JSON text, not an image; remove it"
    return ""
