"""Fill in what is missing with the shipped model; every file says that it is synthetic, and is refused as real."""

import sys
from pathlib import Path

import nibabel as nib

import pdsynth
from pdsynth.types import InputError

work = Path(sys.argv[1] if len(sys.argv) > 1 else "example-study")

written, refused = pdsynth.synthesise("default", work / "bids", work / "synthesised", device="cpu")
print(len(written), "files,", len(refused), "scans refused")
print(written[0].name, "|", nib.load(written[0]).header["descrip"].item().decode())

model = pdsynth.load("default", device="cpu")
try:
    model.synthesize(written[0], to="fmri" if "dwiref" in written[0].name else "dmri")
except InputError as error:
    print("Refused:", error)
