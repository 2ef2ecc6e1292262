"""Look at pairs, a model and a synthesised scan in a notebook: each shows its slices or its facts. SIMULATED."""

# %% Pairs show the numbers of their participants, and the scans of the first one.
import sys
from pathlib import Path

import pdsynth
from pdsynth.data.pairs import Pairs

work = Path(sys.argv[1] if len(sys.argv) == 2 else "example-study")
pairs = Pairs.open(work / "prepared")
pairs

# %% A model shows what it was trained on.
model = pdsynth.load("default", device="cpu")
model

# %% A synthesis shows the volume and its uncertainty, both marked as synthetic.
scan = min((work / "bids").glob("sub-*/func/*_bold.nii.gz"))
synthesis = model.synthesize(scan)
synthesis

# %% A volume shows three slices, too. Its values are an array.
inside = synthesis.volume.data > 0
print(f"{inside.sum()} voxels, mean {synthesis.volume.data[inside].mean():.2f}")
