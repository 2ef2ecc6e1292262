"""The verdict on each file below a participant's folder, by its name and place: the first of a table of rules.

A file is a candidate (a scan that may be chosen), not needed, refused, or a stand-in. A stand-in is another form of a
scan, such as its phase image: it is not needed if the session has a usable scan of that modality, and refused if not,
because that scan was acquired and is not missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from pathlib import Path

from pdsynth.cohorts.names import FOLDER, SUFFIX, entities
from pdsynth.cohorts.walk import LOOP, NOT_FETCHED, Found, is_system
from pdsynth.types import Modality

NIFTI = (".nii", ".nii.gz")
PACKED = r"(?:\.(?:gz|bz2|xz|zst|zip|lz4|z|7z))?"
SURFACE = r"\.(?:dtseries|dscalar|ptseries|pscalar|dlabel|dconn|pconn)\.nii|\.(?:func|surf|shape|label)\.gii|\.gii"
FORMATS = "nii|img|hdr|mgz|mgh|mnc|nrrd|nhdr|mif|mih|brik|head|par|rec|dcm|ima|vtc|dmr"
EXTENSION = re.compile(rf"(?:{SURFACE}|\.(?:{FORMATS}){PACKED}|\.tsv\.gz|\.[^.]*)$", re.IGNORECASE)
IMAGE = re.compile(rf"\.(?:{FORMATS}){PACKED}$", re.IGNORECASE)
SCAN = re.compile(r"(?:^|_)(bold|dwi)(?![a-z])", re.IGNORECASE)  # a name that contains the suffix of a scan
HINTS = {  # words in names that converters and laboratories write
    Modality.FMRI: re.compile(r"(?<![a-z])(?:rs-?fmri|fmri|rest(?:ing)?(?:[ _-]?state)?|epi|ep2d|func|bold)(?![a-z])"),
    Modality.DMRI: re.compile(r"(?<![a-z])(?:dti|dwi|dmri|hardi|noddi|diff(?:usion)?)(?![a-z])"),
}
SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini", "icon\r"}
OTHER_DATA = {"anat", "fmap", "perf", "pet", "meg", "eeg", "ieeg", "beh", "nirs", "motion", "micr", "mrs"}
OUTPUTS = {"figures", "log", "logs", "xfm", "surf", "mri", "stats", "masks", "transforms", "warps", "qc", "work"}
OTHER = OTHER_DATA | OUTPUTS
REFERENCES = {"sbref", "boldref", "dwiref", "epiref", "epi", "magnitude", "magnitude1", "magnitude2", "phasediff", "b0"}
OTHER_IMAGES = {
    "t1w",
    "t2w",
    "flair",
    "pdw",
    "t2star",
    "t2starw",
    "t1map",
    "t2map",
    "swi",
    "asl",
    "m0scan",
    "cbv",
    "pet",
}
OTHER_IMAGES |= {"t1", "t2", "mprage", "fieldmap", "phase1", "phase2", "inplanet2", "angio", "uni", "mp2rage", "norf"}
DERIVED = {"mask", "dseg", "probseg", "aparcaseg", "components", "mixing", "xfm", "stat", "statmap", "boldmap"}
DERIVED |= {"fa", "md", "adc", "ad", "rd", "trace", "tracew", "colfa", "exp", "avgdwi", "kfa", "mk", "dwimap", "s0"}
DERIVED |= {
    "mean",
    "std",
    "tsnr",
    "snr",
    "cnr",
    "alff",
    "falff",
    "reho",
    "brain",
    "t2starmap",
    "s0map",
    "tensor",
    "model",
}
DERIVED |= {"icvf", "isovf", "odi", "peaks", "fod", "wmfod", "tdi", "cfmap", "qform", "noise", "residuals"}
TABLES = {
    ".tsv",
    ".csv",
    ".tsv.gz",
    ".xlsx",
    ".xls",
    ".txt",
    ".log",
    ".xml",
    ".yaml",
    ".yml",
    ".par",
    ".1d",
    ".acq",
    ".md5",
    ".sha256",
}
PAGES = {".html", ".svg", ".png", ".jpg", ".jpeg", ".gif", ".pdf", ".toml", ".md"}
TRANSFORMS = {".mat", ".h5", ".lta", ".xfm", ".dat", ".m3z", ".itk", ".npy", ".npz", ".pkl"}
GRADIENT_TABLES = {".bval", ".bvec", ".bvals", ".bvecs", ".eddy_rotated_bvecs", ".b", ".bmtx"}
PARTS = {"phase", "real", "imag", "imaginary", "ph"}  # of a complex image; its magnitude is used
ENDED_PART = re.compile(r"_(ph|phase|real|imag|imaginary)(?:_(?:bold|dwi))?$")  # as dcm2niix ends a name


WITHOUT_IMAGE = "sidecar or gradient table without its image"  # a rule; perhaps the download was not complete


class Kind(Enum):
    """How a file of a cohort, or a folder that cannot be read, is used.

    CANDIDATE: a scan that may be chosen. NOT_NEEDED: a file that is not read. STAND_IN: another form of a scan, such as
    its phase image; it is not needed if the session has a usable scan of this modality, and refused if not. REFUSED: a
    file that may be a scan but cannot be used, such as one in the wrong folder; it is reported with reason and remedy.
    """

    CANDIDATE = auto()
    NOT_NEEDED = auto()
    STAND_IN = auto()
    REFUSED = auto()


@dataclass(frozen=True)
class Verdict:
    """The decision how a file of a cohort is used, with the name of the rule that made it.

    kind: the decision. modality: that of the scan; None if it is not known. reason and remedy: in words, for a refused
    file or for a file that is another form of a scan; else "". session: name or day of the participant's session, or
    (participant, session) in a folder of any structure. It is None if the file's folder does not show it; a refusal
    then concerns every session of the participant.
    """

    path: Path
    kind: Kind
    rule: str
    modality: Modality | None = None
    session: Hashable = None
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Item:
    """A file of a cohort with the parts of its name, from which rules decide how it is used.

    found: the file's path, name and folders, as `walk` yields them. session: the participant's session (name or day) by
    the file's folder, or (participant, session) in a folder of any structure; None if unknown. level: the reason why
    the file is at the wrong level of the tree of folders, None at the right one. series: the modality that the layout
    of the dataset takes from folders, file name or a pattern; None if these show none.

    >>> item = Item(Found(Path("sub-1/func/sub-1_BOLD.NII.GZ"), ("func",), "sub-1_BOLD.NII.GZ"))
    >>> item.extension, item.stem, item.modality
    ('.NII.GZ', 'sub-1_BOLD', <Modality.FMRI: 'fmri'>)
    """

    found: Found
    session: Hashable = None
    level: str | None = None
    series: Modality | None = None

    @cached_property
    def extension(self) -> str:
        match = EXTENSION.search(self.found.name)
        return match[0] if match else ""

    @cached_property
    def stem(self) -> str:
        return self.found.name.removesuffix(self.extension)

    @cached_property
    def suffix(self) -> str:
        return self.stem.rpartition("_")[2]

    @cached_property
    def is_image(self) -> bool:
        return IMAGE.search(self.extension) is not None

    @cached_property
    def modality(self) -> Modality | None:
        """The modality by the suffix in the file name, bold or dwi in any case; None without one of them.

        The suffix is at the beginning or follows an underscore, and no letter follows it; it need not be at the end.
        """
        match = SCAN.search(self.found.name)
        return None if match is None else _BY_SUFFIX[match[1].lower()]

    @cached_property
    def likely(self) -> Modality | None:
        """The modality by the first source that shows it; None if it is unclear.

        A source whose words show both modalities is passed over. The sources are `series` (the modality by the
        dataset's layout), the suffix bold or dwi, words such as "rest" or "dti" in the file's name, and such words in
        the names of its folders, the nearest first.
        """
        if self.series is not None or self.modality is not None:
            return self.series or self.modality
        for text in (self.stem, *reversed(self.found.dirs)):
            hits = [modality for modality, hint in HINTS.items() if hint.search(text.lower())]
            if len(hits) == 1:
                return hits[0]
        return None

    @cached_property
    def part(self) -> str | None:
        """The part of a complex image that is not its magnitude; None for others.

        It is phase, ph, real, imag or imaginary, by a part of the file name such as part-phase, or by its end, such as
        _ph. Capitals in the name do not matter.
        """
        part = entities(self.found.name).get("part", "mag").lower()
        ended = ENDED_PART.search(self.stem.lower())
        return part if part in PARTS else ended[1] if ended else None


_BY_SUFFIX = {suffix: modality for modality, suffix in SUFFIX.items()}


@dataclass(frozen=True)
class Rule:
    """One rule of an ordered table that decides how a file of a cohort is used: a test, and the decision if it is true.

    name: for reports. fits(item): the test. kind: the decision, by default that the file is not needed. reason:
    function that returns reason and remedy in words, for a refused file or for another form of a scan (a stand-in).
    """

    name: str
    fits: Callable[[Item], bool]
    kind: Kind = Kind.NOT_NEEDED
    reason: Callable[[Item], tuple[str, str]] = field(default=lambda item: ("", ""))


def _whole(item: Item) -> tuple[str, str]:
    return str(item.found.problem), "ask for permission to read it, or repair the link"


def _problem(item: Item) -> tuple[str, str]:
    if item.found.problem == NOT_FETCHED:
        return NOT_FETCHED, "fetch it with `datalad get` or `git annex get`"
    return str(item.found.problem), "copy the file here, repair the link, or ask for permission"


ANALYZE = (
    "convert it again from DICOM, because an Analyze pair does not record left and right; only a NIfTI pair may be "
    "converted to .nii.gz"
)


def _spelling(item: Item) -> tuple[str, str]:
    extension, suffix = item.extension.lower(), item.suffix
    if extension not in NIFTI:
        problem = f"is {item.extension or 'a file without extension'}, neither .nii nor .nii.gz"
        pair = extension in (".hdr", ".img")
        return problem, ANALYZE if pair else "convert it to .nii.gz"
    exact = suffix.lower() if suffix.lower() in _BY_SUFFIX else suffix
    name = f"{item.stem.removesuffix(suffix)}{exact}{extension}"
    if name != item.found.name:
        return "has capitals in its suffix or extension, which are lower case in BIDS", f"rename it {name}"
    return f"has a name that does not end in _{SUFFIX[_of(item)]}{extension}", "rename it, or leave it out"


def _of(item: Item) -> Modality:
    modality = item.likely
    assert modality is not None
    return modality


def _level(item: Item) -> tuple[str, str]:
    folder = FOLDER[_of(item)]
    if item.level is not None:
        move = f"move it and its tables to the folder {folder} there, with ses- in their names"
        return item.level, f"find its session by the date; {move}"
    return f"lies in {'/'.join(item.found.dirs)}, not in a folder {folder}", f"move it into the folder {folder}"


def _misplaced(item: Item) -> tuple[str, str]:
    return str(item.level), "move it to where the other scans of its kind are"


def _part(item: Item) -> tuple[str, str]:
    return f"is the {item.part} part of a complex image, whose magnitude is not here", "add the magnitude (part-mag)"


def _surface(item: Item) -> tuple[str, str]:
    return "is on a surface or in grayordinates, not a volume", "add the volume (.nii.gz)"


def _unnamed(item: Item) -> tuple[str, str]:
    suffix = SUFFIX[_of(item)]
    return f"may be {'fMRI' if suffix == 'bold' else 'dMRI'} by its place, but is not named _{suffix}", (
        f"rename it to end in _{suffix}.nii.gz, or leave it out"
    )


def _unfinished(item: Item) -> tuple[str, str]:
    return "is hidden, or an unfinished copy or a backup", "complete the copy, and name it without additions"


def _is_copy(item: Item) -> bool:
    """Whether a scan's name has something before or after it: .sub-1_bold.nii.gz.aB3, sub-1_bold (1).nii.gz."""
    ours = item.series is not None or item.modality is not None
    image = re.search(r"\.(?:nii|img|mgz)(?![a-z])", item.found.name, re.IGNORECASE) is not None
    return ours and image and (item.found.name.startswith(".") or not item.is_image)


def _lacks_image(item: Item) -> bool:
    """Whether a sidecar or a gradient table lies in the folder of its scans, but no scan to which it applies does."""
    if item.modality is None or item.extension.lower() not in (".json", *GRADIENT_TABLES) or not _right_folder(item):
        return False
    parts = set(item.stem.split("_"))
    names = os.listdir(item.found.path.parent)
    return not any(IMAGE.search(name) and parts <= set(EXTENSION.sub("", name).split("_")) for name in names)


def _right_folder(item: Item) -> bool:
    return item.level is None and bool(item.found.dirs) and item.found.dirs[-1] == FOLDER[_of(item)]


def _is_scan(item: Item) -> bool:
    return item.is_image and item.modality is not None and item.suffix.lower() in _BY_SUFFIX


def _is_derived(item: Item) -> bool:
    return item.suffix.lower() in DERIVED or item.suffix.lower().endswith("mask")


def _is_table(item: Item) -> bool:
    extension = item.extension.lower()
    return extension in TABLES and (extension != ".par" or item.modality is None)  # .par is a format of Philips, too


def _is_surface(item: Item) -> bool:
    return re.fullmatch(SURFACE, item.extension.lower()) is not None


def _of_other_data(item: Item) -> bool:
    return any(folder.lower().rstrip("0123456789") in OTHER for folder in item.found.dirs)


COMMON = (
    Rule("AppleDouble file of macOS (._*)", lambda i: i.found.name.startswith("._")),
    Rule("file of the system or of git", lambda i: i.found.name.lower() in SYSTEM_FILES),
    Rule("folder of the system or of git", lambda i: i.found.whole and is_system(i.found.name)),
    Rule("link to a folder that contains it", lambda i: i.found.problem == LOOP),
    Rule("folder of other data", lambda i: i.found.whole and (i.found.name.lower() in OTHER or _of_other_data(i))),
    Rule("folder that cannot be read", lambda i: i.found.whole, Kind.REFUSED, _whole),
    Rule(WITHOUT_IMAGE, _lacks_image),
    Rule("sidecar of no chosen scan", lambda i: i.extension.lower() == ".json"),
    Rule("gradient table of no chosen scan", lambda i: i.extension.lower() in GRADIENT_TABLES),
    Rule("table or log", _is_table),
    Rule("page or picture", lambda i: i.extension.lower() in PAGES),
    Rule("transform or array", lambda i: i.extension.lower() in TRANSFORMS),
    Rule("unfinished copy or backup", _is_copy, Kind.REFUSED, _unfinished),
    Rule("hidden file", lambda i: i.found.name.startswith(".")),
    Rule("surface or grayordinates", _is_surface, Kind.STAND_IN, _surface),
    Rule("file of another kind", lambda i: not i.is_image),
)
BIDS = (
    *COMMON,
    Rule("mask or derived map", _is_derived),
    Rule("reference image or field map", lambda i: i.suffix.lower() in REFERENCES),
    Rule("image of another kind", lambda i: i.suffix.lower() in OTHER_IMAGES),
    Rule("part of a complex image", lambda i: i.part is not None and i.likely is not None, Kind.STAND_IN, _part),
    Rule("other format", lambda i: _is_scan(i) and i.extension not in NIFTI, Kind.REFUSED, _spelling),
    Rule("suffix in capitals", lambda i: _is_scan(i) and i.suffix not in _BY_SUFFIX, Kind.REFUSED, _spelling),
    Rule("scan in a folder of other data", lambda i: _is_scan(i) and _of_other_data(i), Kind.STAND_IN, _level),
    Rule("wrong level", lambda i: _is_scan(i) and not _right_folder(i), Kind.REFUSED, _level),
    Rule("unreadable", lambda i: _is_scan(i) and i.found.problem is not None, Kind.REFUSED, _problem),
    Rule("candidate", _is_scan, Kind.CANDIDATE),
    Rule("file in a folder of other data", _of_other_data),
    Rule("scan with another name", lambda i: i.modality is not None, Kind.STAND_IN, _spelling),
    Rule("image of an unknown kind", lambda i: i.likely is not None, Kind.STAND_IN, _unnamed),
    Rule("image of another kind", lambda i: True),
)
BY_PLACE = {"scan in a folder of other data", "wrong level", "unreadable", "candidate"}
NAMED = tuple(rule for rule in BIDS if rule.name not in BY_PLACE)  # of a layout whose scans have exact names
OTHER_SERIES = "file of another series"
SERIES = (  # of a layout that takes the modality from a name, the folders or a pattern
    *COMMON,
    Rule(OTHER_SERIES, lambda i: i.series is None),
    Rule("part of a complex image", lambda i: i.part is not None, Kind.STAND_IN, _part),
    Rule("other format", lambda i: i.extension not in NIFTI, Kind.REFUSED, _spelling),
    Rule("wrong level", lambda i: i.level is not None, Kind.REFUSED, _misplaced),
    Rule("unreadable", lambda i: i.found.problem is not None, Kind.REFUSED, _problem),
    Rule("candidate", lambda i: True, Kind.CANDIDATE),
)


def classify(item: Item, rules: tuple[Rule, ...] = BIDS) -> Verdict:
    """Decide how a file of a cohort is used: as a candidate (a scan), a stand-in, not at all, or refused; see `Kind`.

    The first of the rules that fits decides; the default rules are those of BIDS. At least one rule must fit. A
    stand-in is another form of a scan, such as a surface; one whose modality is not known becomes not needed.
    """
    rule = next(rule for rule in rules if rule.fits(item))
    path, kind = item.found.path, rule.kind
    if kind is Kind.STAND_IN and item.likely is None:  # such as a surface of anatomy
        kind = Kind.NOT_NEEDED
    reason, remedy = rule.reason(item) if kind in (Kind.STAND_IN, Kind.REFUSED) else ("", "")
    return Verdict(path, kind, rule.name, item.likely, item.session, reason, remedy)
