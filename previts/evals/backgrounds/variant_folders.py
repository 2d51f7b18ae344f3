"""Writes the Backgrounds Challenge from any images and masks: eight variants of each image, in its own layout.

PreViTS section 4.4, figure 4. What a variant is stands in `variants.py`; here files are read and written. An image
without an object is left out of all variants. Never scores anything: `previts evaluate --benchmark in9` reads it.
"""

import csv
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from previts.errors import InputError
from previts.evals import labelled_images
from previts.media.masks import Mask, object_pixels
from previts.media.variants import MIXED, VARIANTS, Oddities, Pixels, oddities, only_bg_t, partners, vary
from previts.processes import prefetch
from previts.processes.progress import progress
from previts.storage import files

SPLIT, MASKS = "val", "fg_mask"
# The first makes a folder finished; the second says what an unfinished one is going to hold.
MANIFEST, BEGUN = "manifest.csv", "begun.csv"
COLUMNS = ("seed", "variant", "class", "image", "background_class", "background_image", "source")
QUALITY = 95  # not stated; of JPEG
AT_ONCE = 16  # images between two looks at the progress bar
_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True)
class MaskedImage:
    """An image with an object, its mask, and the names of its variants.

    Attributes:
        label: Number of its class.
        class_name: Name of its folder.
        name: File name of its variants: the image's own name, with .png if it is not a JPEG.
        image: URI of the image.
        mask: URI of the mask.
        digest: 12 hex digits of both files.
    """

    label: int
    class_name: str
    name: str
    image: str
    mask: str
    digest: str

    @property
    def key(self) -> str:
        """Its key in the choice of partners."""
        return f"{self.class_name}/{self.name}"


@dataclass
class ImagesWithMasks:
    """The images with an object, the images that were left out, and the oddities of the masks."""

    sources: list[MaskedImage] = field(default_factory=list)
    without_object: list[str] = field(default_factory=list)
    odd: Oddities = field(default_factory=Oddities)


def write(images: str, masks: str, out: str, seed: int) -> str:
    """Write `{out}/{variant}/val/{class}/{name}`, `{out}/fg_mask/val` and at last `{out}/manifest.csv`.

    A call that was stopped goes on where it was; one that finds its work done does nothing.

    Args:
        images: Folder of `<class>/<image>`.
        masks: Folder of `<class>/<image>.png`, of the images' sizes; what is not 0 is object.
        out: Folder for the variants.
        seed: Decides which backgrounds the mixed variants take.

    Returns:
        What was written, for a person to read.

    Raises:
        InputError: If a file is missing or damaged, a mask has another size, a class has one image only, or the folder
            holds other variants.
    """
    found = find(images, masks)
    sources = found.sources
    behind = {
        variant: partners(variant, [source.label for source in sources], [source.key for source in sources], seed)
        for variant in MIXED
    }
    manifest = _manifest(sources, behind, seed)
    if not _finished(out, manifest):
        files.write_bytes(files.join(out, BEGUN), manifest)
        places = range(len(sources))
        groups = [places[start : start + AT_ONCE] for start in range(0, len(sources), AT_ONCE)]

        def write_one(place: int) -> None:
            _write_variants(out, sources[place], {name: sources[chosen[place]] for name, chosen in behind.items()})

        with progress(places, "variants", unit="image") as shown:
            for done in prefetch.loaded(groups, write_one):
                shown.update(len(done))
        files.write_bytes(files.join(out, MANIFEST), manifest)
        files.delete(files.join(out, BEGUN))
    return _told(found, out)


def find(images: str, masks: str) -> ImagesWithMasks:
    """Read every mask and the size of every image, and return what can be taken apart.

    Raises:
        InputError: If a mask is missing, damaged or of another size, two images would share a name, or no image shows
            an object.
    """
    listed, found = labelled_images.read_image_folder(images), ImagesWithMasks()
    names: set[tuple[str, str]] = set()
    for uri, label in progress(list(zip(listed.uris, listed.labels, strict=True)), "masks", unit="mask"):
        class_name, _, file_name = uri.removeprefix(files.join(images, "")).partition("/")
        if "/" in file_name:
            raise InputError(f"{uri} lies deeper than {files.join(images, '<class>', '<image>')}; move it up")
        stem, dot, suffix = file_name.rpartition(".")
        if (class_name, stem) in names:
            raise InputError(f"{images}: two images are called {class_name}/{stem}, and would share a mask; rename one")
        names.add((class_name, stem))
        mask_uri = files.join(masks, class_name, f"{stem}.png")
        mask_HW = read_mask(mask_uri)
        width, height = labelled_images.open_image(uri).size
        if mask_HW.shape != (height, width):
            raise InputError(
                f"{mask_uri} has {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its image {uri} {width} x {height}; "
                "a mask needs the size of its image"
            )
        if not mask_HW.any():
            found.without_object.append(uri)
            continue
        found.odd += oddities(mask_HW[None])
        digest = hashlib.sha256(files.read_bytes(uri) + files.read_bytes(mask_uri)).hexdigest()[:12]
        name = file_name if f"{dot}{suffix}".lower() in _JPEG else f"{stem}.png"
        found.sources.append(MaskedImage(label, class_name, name, uri, mask_uri, digest))
    if not found.sources:
        raise InputError(f"none of the {len(listed.uris)} masks in {masks} shows an object: every pixel is 0")
    return found


def read_mask(uri: str) -> Mask:
    """Return a mask file as HW; see `object_pixels` for the pixels that count as object.

    Raises:
        InputError: If the file is missing or is not an image.
    """
    if not files.exists(uri):
        raise InputError(f"{uri} is missing; every image needs a mask of its own name, a PNG in a folder of its class")
    return object_pixels(labelled_images.open_image(uri))


def _manifest(sources: list[MaskedImage], behind: dict[str, list[int]], seed: int) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, source in enumerate(sources):
        for variant in VARIANTS:
            back = sources[behind[variant][place]] if variant in behind else None
            where = (back.class_name, back.name) if back else ("", "")
            writer.writerow((seed, variant, source.class_name, source.name, *where, source.digest))
    return text.getvalue().encode()


def _finished(out: str, manifest: bytes) -> bool:
    """Return whether the folder holds these variants already.

    Raises:
        InputError: If it holds others, finished or not.
    """
    for name in (MANIFEST, BEGUN):
        uri = files.join(out, name)
        if files.exists(uri):
            if files.read_bytes(uri) != manifest:
                raise InputError(
                    f"{uri} is of other images, masks or another seed; give an empty folder, or delete that one"
                )
            return name == MANIFEST
    if taken := [name for name in (*VARIANTS, MASKS) if files.exists(files.join(out, name))]:
        raise InputError(f"{files.join(out, taken[0])} is there already, not from this tool; give an empty folder")
    return False


def _write_variants(out: str, source: MaskedImage, behind: dict[str, MaskedImage]) -> None:
    """Write all variants of one image, its mask last: where that is, the others are."""
    mask_uri = files.join(out, MASKS, SPLIT, source.class_name, f"{source.name.rpartition('.')[0]}.png")
    if files.exists(mask_uri):
        return
    image_HWC, mask_HW = _read(source)
    backs = {variant: only_bg_t(*_read(other)) for variant, other in behind.items()}
    for variant in VARIANTS:
        varied = vary(variant, image_HWC, mask_HW, backs.get(variant))
        # The original is coded anew like all others: no variant differs from another by how often it was compressed.
        uri = files.join(out, variant, SPLIT, source.class_name, source.name)
        files.write_bytes(uri, _encoded(varied, "PNG" if source.name.endswith(".png") else "JPEG"))
    files.write_bytes(mask_uri, _encoded(mask_HW.astype(np.uint8) * 255, "PNG"))


def _read(source: MaskedImage) -> tuple[Pixels, Mask]:
    image = labelled_images.open_image(source.image).convert("RGB")
    return np.asarray(image, dtype=np.uint8), read_mask(source.mask)


def _encoded(pixels: Pixels, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=QUALITY)
    return file.getvalue()


def _told(found: ImagesWithMasks, out: str) -> str:
    classes = {source.class_name for source in found.sources}
    lines = [
        f"{len(VARIANTS)} variants of {len(found.sources)} images of {len(classes)} classes: {out}",
        f"Which background stands behind which object: {files.join(out, MANIFEST)}",
    ]
    if found.without_object:
        lines.append(
            f"Left out, their masks are empty: {len(found.without_object)}, the first is {found.without_object[0]}"
        )
    if found.odd.spanned:
        lines.append(f"Objects whose box spans the image, so that only_bg_t is black: {found.odd.spanned}")
    lines.append(f"To score a model on them, put training images into {files.join(out, 'train/original/<class>')}.")
    return "\n".join(lines)
