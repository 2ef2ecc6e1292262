"""Synthesise the missing scans with the shipped model. Every file is marked as synthetic and refused as a real scan."""

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
