"""The eight variants of the Backgrounds Challenge, made from the user's own images and masks and stored in its layout.

PreViTS section 4.4, figure 4. `media/variants.py` defines the variants; this module reads and writes the files. An
image without an object has no variants. `previts evaluate --benchmark in9` scores models on the result.
"""

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
from previts.storage import csv_text, files

SPLIT, MASKS = "val", "fg_mask"
# The first marks a folder as complete. The second has the same text while the folder is incomplete.
MANIFEST, BEGUN = "manifest.csv", "begun.csv"
COLUMNS = ("seed", "variant", "class", "image", "background_class", "background_image", "source")
QUALITY = 95  # not stated; of JPEG
AT_ONCE = 16  # images between two updates of the progress bar
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
    """Write `{out}/{variant}/val/{class}/{name}`, `{out}/fg_mask/val` and, last, `{out}/manifest.csv`.

    A call after an interruption resumes. A call on a complete folder writes nothing.

    Args:
        images: Folder of `<class>/<image>`.
        masks: Folder of `<class>/<image>.png`, of the images' sizes; pixels that are not 0 belong to the object.
        out: Folder for the variants.
        seed: Selects the backgrounds of the mixed variants.

    Returns:
        A summary for the user.

    Raises:
        InputError: If a file is missing or damaged, a mask differs in size from its image, a class has only one image,
            or the folder has other variants.
    """
    found = find(images, masks)
    sources = found.sources
    backgrounds = {
        variant: partners(variant, [source.label for source in sources], [source.key for source in sources], seed)
        for variant in MIXED
    }
    manifest = _manifest(sources, backgrounds, seed)
    if not _finished(out, manifest):
        files.write_bytes(files.join(out, BEGUN), manifest)
        places = range(len(sources))
        groups = [places[start : start + AT_ONCE] for start in range(0, len(sources), AT_ONCE)]

        def write_one(place: int) -> None:
            _write_variants(out, sources[place], {name: sources[chosen[place]] for name, chosen in backgrounds.items()})

        with progress(places, "variants", unit="image") as shown:
            for done in prefetch.loaded(groups, write_one):
                shown.update(len(done))
        files.write_bytes(files.join(out, MANIFEST), manifest)
        files.delete(files.join(out, BEGUN))
    return _summary(found, out)


def find(images: str, masks: str) -> ImagesWithMasks:
    """Read every mask and the size of every image, and return the images that have an object.

    Raises:
        InputError: If a mask is missing, damaged or of another size, two images share a name, or no mask has an object.
    """
    listed, found = labelled_images.read_image_folder(images), ImagesWithMasks()
    names: set[tuple[str, str]] = set()
    for uri, label in progress(list(zip(listed.uris, listed.labels, strict=True)), "masks", unit="mask"):
        class_name, _, file_name = uri.removeprefix(files.join(images, "")).partition("/")
        if "/" in file_name:
            raise InputError(
                f"{uri} is deeper than {files.join(images, '<class>', '<image>')}; move it to the folder of its class"
            )
        stem, dot, suffix = file_name.rpartition(".")
        if (class_name, stem) in names:
            raise InputError(
                f"{images}: two images have the name {class_name}/{stem} and would share a mask; rename one of them"
            )
        names.add((class_name, stem))
        mask_uri = files.join(masks, class_name, f"{stem}.png")
        mask_HW = read_mask(mask_uri)
        width, height = labelled_images.open_image(uri).size
        if mask_HW.shape != (height, width):
            raise InputError(
                f"{mask_uri} has {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, its image {uri} {width} x {height}; "
                "give the mask the size of its image"
            )
        if not mask_HW.any():
            found.without_object.append(uri)
            continue
        found.odd += oddities(mask_HW[None])
        digest = hashlib.sha256(files.read_bytes(uri) + files.read_bytes(mask_uri)).hexdigest()[:12]
        name = file_name if f"{dot}{suffix}".lower() in _JPEG else f"{stem}.png"
        found.sources.append(MaskedImage(label, class_name, name, uri, mask_uri, digest))
    if not found.sources:
        raise InputError(
            f"none of the {len(listed.uris)} masks in {masks} has an object; mark objects by values other than 0"
        )
    return found


def read_mask(uri: str) -> Mask:
    """Return a mask file as HW; see `object_pixels` for the pixels that count as object.

    Raises:
        InputError: If the file is missing or is not an image.
    """
    if not files.exists(uri):
        raise InputError(f"{uri} is missing; every image needs a mask with its class folder and name, as a PNG")
    return object_pixels(labelled_images.open_image(uri))


def _manifest(sources: list[MaskedImage], backgrounds: dict[str, list[int]], seed: int) -> bytes:
    lines: list[list[csv_text.Cell]] = []
    for place, source in enumerate(sources):
        for variant in VARIANTS:
            back = sources[backgrounds[variant][place]] if variant in backgrounds else None
            where = (back.class_name, back.name) if back else ("", "")
            lines.append([seed, variant, source.class_name, source.name, *where, source.digest])
    return csv_text.to_csv(COLUMNS, lines).encode()


def _finished(out: str, manifest: bytes) -> bool:
    """Return whether the folder already has all of these variants.

    Raises:
        InputError: If it has other variants, complete or not.
    """
    for name in (MANIFEST, BEGUN):
        uri = files.join(out, name)
        if files.exists(uri):
            if files.read_bytes(uri) != manifest:
                raise InputError(
                    f"{uri} was written for other images, other masks or another seed; give an empty folder"
                )
            return name == MANIFEST
    if taken := [name for name in (*VARIANTS, MASKS) if files.exists(files.join(out, name))]:
        raise InputError(f"{files.join(out, taken[0])} exists but has no manifest; give an empty folder")
    return False


def _write_variants(out: str, source: MaskedImage, backgrounds: dict[str, MaskedImage]) -> None:
    """Write all variants of one image, and its mask last: if the mask exists, so do the variants."""
    mask_uri = files.join(out, MASKS, SPLIT, source.class_name, f"{source.name.rpartition('.')[0]}.png")
    if files.exists(mask_uri):
        return
    image_HWC, mask_HW = _read(source)
    backs = {variant: only_bg_t(*_read(other)) for variant, other in backgrounds.items()}
    for variant in VARIANTS:
        varied = vary(variant, image_HWC, mask_HW, backs.get(variant))
        # The original is encoded again too, so that all variants were compressed equally often.
        uri = files.join(out, variant, SPLIT, source.class_name, source.name)
        files.write_bytes(uri, _encoded(varied, "PNG" if source.name.endswith(".png") else "JPEG"))
    files.write_bytes(mask_uri, _encoded(mask_HW.astype(np.uint8) * 255, "PNG"))


def _read(source: MaskedImage) -> tuple[Pixels, Mask]:
    image = labelled_images.as_rgb(labelled_images.open_image(source.image))
    return np.asarray(image, dtype=np.uint8), read_mask(source.mask)


def _encoded(pixels: Pixels, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=QUALITY)
    return file.getvalue()


def _summary(found: ImagesWithMasks, out: str) -> str:
    classes = {source.class_name for source in found.sources}
    lines = [
        f"{len(VARIANTS)} variants of {len(found.sources)} images of {len(classes)} classes: {out}",
        f"The background of each object: {files.join(out, MANIFEST)}",
    ]
    if found.without_object:
        lines.append(
            f"Images with an empty mask, left out: {len(found.without_object)}, such as {found.without_object[0]}"
        )
    if found.odd.spanned:
        lines.append(f"Objects whose box spans the image, which makes only_bg_t black: {found.odd.spanned}")
    lines.append(f"To score a model on them, add training images in {files.join(out, 'train/original/<class>')}.")
    return "\n".join(lines)
