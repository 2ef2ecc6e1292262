"""Anatomy of one participant: the template with individual folding, shape, age and disease.

Both scans of the participant are simulated from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pdsynth.cohorts.simulated.fields import coarse_nodes, random_field, signed_distance, upsample, world
from pdsynth.cohorts.simulated.heads import TISSUES, Head
from pdsynth.cohorts.simulated.priors import Priors, priors
from pdsynth.cohorts.simulated.sites import AGE_YEARS, SEVERITY
from pdsynth.imaging.spatial import Grid, mni_grid
from pdsynth.types import Diagnosis

VELOCITY_FWHM_MM, VELOCITY_RMS_MM = 36.0, 2.5
LOCAL_FWHM_MM, LOCAL_RMS_MM = 14.0, 0.8  # individual gyri are displaced as well
STEPS = 5  # squarings of the velocity field
NODES_MM = 6.0  # lattice of the deformation
DISPERSION = 0.35  # factor on share - 0.5 of the first fibre direction: no voxel holds one straight bundle alone
SHARPEN = 1.8  # an individual brain has sharper borders than the average of 152
SULCUS_FWHM_MM = 13.0
SUBARACHNOID = 0.5
THICKNESS_MM = (2.0, 2.9)  # range of the cortex of a real head
RIM_MM = (0.5, 2.2)  # range of the fluid that covers the brain of a real head, at the mean age
RIM_PER_DECADE_MM = 0.4
RIM_LOSS, RIM_REACH_MM = (0.2, 0.6), 1.5  # a gradient echo loses this share of its signal at the surface of the brain


@dataclass(frozen=True)
class Person:
    """A simulated participant.

    age is in years, and sex is "F" or "M". severity of the disease is 0 (healthy) to 1. ventricle_mm is the shift of
    the ventricles' surface outwards from that of the template, hippocampus_mm that of the hippocampi's surface inwards;
    either may be negative.
    """

    diagnosis: Diagnosis
    age: float
    sex: str
    severity: float
    ventricle_mm: float
    hippocampus_mm: float

    @property
    def decades(self) -> float:
        """Age minus the mean of simulated cohorts (74 years), in decades; negative for a younger person."""
        return (self.age - AGE_YEARS[0]) / 10


@dataclass(frozen=True)
class Anatomy:
    """Maps of one person on the working grid, the grid of the simulation before the scanner.

    All are (X, Y, Z) float32 unless another type or shape is given. gm, wm, csf, scalp, fat and eye are volume
    fractions; the property brain is the sum of the first three. vulnerable (fibre bundles that degenerate with
    severity), hippocampus, iron and lesion (white-matter hyperintensity) are 0..1. regions is int16: 0, or 1 + the
    index of a functional region. region_network (regions,) is the index in NETWORKS of each region's network.
    directions (2, 3, X, Y, Z) are two fibre directions, unit vectors in the brain and 0 far outside; share is the
    weight of the first, 1 - share that of the second. field is the relative off-resonance; each scan scales it to a
    shift in mm and to dropout. outside is the distance to the brain's hull in mm, negative inside. rim_loss is the
    share of the signal of a gradient echo that is lost near the hull. to_template (4, 4) maps the working grid's mm to
    template mm. For a person who is not simulated from a real head, rim_loss is 0 and to_template is the identity.
    """

    grid: Grid
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    scalp: np.ndarray
    fat: np.ndarray
    eye: np.ndarray
    hippocampus: np.ndarray
    vulnerable: np.ndarray
    lesion: np.ndarray
    iron: np.ndarray
    regions: np.ndarray
    region_network: np.ndarray
    directions: np.ndarray
    share: np.ndarray
    field: np.ndarray
    outside: np.ndarray
    rim_loss: np.ndarray | float
    to_template: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        return np.asarray(self.gm + self.wm + self.csf)


def draw_person(generator: np.random.Generator, diagnosis: Diagnosis, severity: float | None = None) -> Person:
    """Draw age, sex and severity of a participant, and their effect on ventricles and hippocampi.

    The diagnosis sets the distribution of the severity only. If severity is given, it replaces the random one; all
    other random draws are unchanged. In both cases, it is clipped to 0..1. The age is clipped to 55..95 years.
    """
    random_severity = generator.normal(*SEVERITY[diagnosis])
    severity = float(np.clip(random_severity if severity is None else severity, 0, 1))
    age = float(np.clip(generator.normal(*AGE_YEARS), 55, 95))
    decades = (age - AGE_YEARS[0]) / 10
    return Person(
        diagnosis=diagnosis,
        age=age,
        sex="F" if generator.random() < 0.5 else "M",
        severity=severity,
        ventricle_mm=float(3.0 * severity + 1.2 * decades + generator.normal()),
        hippocampus_mm=float(2.0 * severity + 0.4 * decades + 0.4 * generator.normal()),
    )


def deformation(generator: np.random.Generator, person: Person, grid: Grid, to_template: np.ndarray) -> np.ndarray:
    """Displacement in mm from the participant's space to the template's: (3, x, y, z) on nodes about 6 mm apart.

    grid: the working grid, whose outermost voxels are the outermost nodes. to_template (4, 4): map from its mm to
    template mm, the identity if they are the same. The generator draws the folding and shape, and the person's
    ventricle_mm and hippocampus_mm widen the ventricles and shrink the hippocampi. A stationary velocity field is
    integrated by scaling and squaring (Arsigny et al. 2006). The map is therefore invertible.
    """
    nodes = coarse_nodes(grid, NODES_MM)
    p = priors()
    velocity = VELOCITY_RMS_MM / np.sqrt(3) * random_field(generator, nodes, VELOCITY_FWHM_MM, 3)
    velocity += LOCAL_RMS_MM / np.sqrt(3) * random_field(generator, nodes, LOCAL_FWHM_MM, 3)
    index = _index(p.coarse, _moved(to_template, world(nodes)))
    velocity -= person.ventricle_mm * _sample(p.ventricle_push, index)
    velocity -= person.hippocampus_mm * _sample(p.hippocampus_pull, index)
    step = (1 / nodes.spacing_mm).astype(np.float32)[:, None, None, None]
    displacement = velocity / 2**STEPS
    identity = np.indices(nodes.shape, dtype=np.float32)
    for _ in range(STEPS):
        displacement = displacement + _sample(displacement, identity + displacement * step)
    return np.asarray(displacement, np.float32)


def draw_anatomy(generator: np.random.Generator, person: Person, grid_mm: float, head: Head | None = None) -> Anatomy:
    """Draw the maps of one person on the working grid: the MNI box with voxels of 0.75 * grid_mm (in mm).

    Without a head, the person is the deformed template, in MNI space. With a real head, the person is the deformed
    head, turned to the orientation of MNI space but in its own size; `to_template` of the result maps its mm to MNI mm.
    Age, severity, ventricle_mm and hippocampus_mm of the person set the atrophy, the lesions, and the sizes of
    ventricles and hippocampi.
    """
    p = priors()
    grid = mni_grid(0.75 * grid_mm)
    to_template = np.eye(4) if head is None else head.to_template
    displacement = deformation(generator, person, grid, to_template)
    nodes = coarse_nodes(grid, NODES_MM)
    smooth_index = _index(p.coarse, _moved(to_template, world(nodes) + displacement))
    names = ("outside", "hippocampus", "default_mode", "periventricular", "iron", "folded")
    soft = np.stack([*(getattr(p, n) for n in names), p.fibres["vulnerable"], p.fibres["share"]])
    maps = dict(zip([*names, "vulnerable", "share"], upsample(_sample(soft, smooth_index), grid), strict=True))
    own = world(grid) + upsample(displacement, grid)
    at = _moved(to_template, own)
    real = {} if head is None else _real(generator, person, head, grid, own)
    maps |= {name: real[name] for name in ("outside", "hippocampus", "iron") if name in real}
    inside = maps["outside"] < 6
    gm, wm, csf = [real[t] for t in TISSUES[:3]] if real else _fold(generator, p, grid, at, inside, maps)
    gm, csf = _atrophy(person, gm, csf, maps)
    nearest = np.rint(_index(p.coarse, at[:, inside])).astype(np.int32)
    nearest = tuple(np.clip(n, 0, s - 1) for n, s in zip(nearest, p.coarse.shape, strict=True))
    regions = np.zeros(grid.shape, np.int16)
    regions[inside] = p.regions[nearest]
    scalp = {name: real[name] for name in ("scalp", "fat", "eye")} if head is not None and head.has_scalp else {}
    scalp = scalp or _head(generator, grid, maps["outside"])
    amplitude = generator.uniform(0.9, 1.7, len(p.dipoles)).astype(np.float32)
    node_index = _index(p.coarse, _moved(to_template, world(nodes)))
    return Anatomy(
        grid=grid, gm=gm, wm=wm, csf=csf, **scalp,
        hippocampus=maps["hippocampus"], vulnerable=maps["vulnerable"],
        lesion=np.maximum(_lesions(generator, person, grid, maps["periventricular"]), real.get("lesion", 0)) * wm,
        iron=maps["iron"], regions=regions, region_network=p.region_network,
        directions=_directions(p, grid, displacement, nearest, inside),
        share=0.5 + DISPERSION * np.clip(maps["share"] - 0.5, 0, 0.5),
        field=upsample(_sample(np.tensordot(amplitude, p.dipoles, 1)[None], node_index), grid)[0],
        outside=maps["outside"],
        rim_loss=real.get("rim_loss", 0.0),
        to_template=to_template,
    )  # fmt: skip


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (3, ...) in mm after a map (4, 4)."""
    shift = matrix[:3, 3].reshape(3, *[1] * (points.ndim - 1)).astype(np.float32)
    return np.asarray(np.tensordot(matrix[:3, :3].astype(np.float32), points, 1) + shift)


def _real(
    generator: np.random.Generator, person: Person, head: Head, grid: Grid, positions: np.ndarray
) -> dict[str, np.ndarray]:
    """Maps (X, Y, Z) of a real head, by their names in `Anatomy`.

    positions (3, X, Y, Z) are those of the voxels in the undeformed head, in mm.
    """
    thickness = generator.uniform(*THICKNESS_MM)
    rim = max(generator.uniform(*RIM_MM) + RIM_PER_DECADE_MM * person.decades, 0.0)
    *maps, hull = head.tissues(positions, grid.spacing_mm, thickness, rim)
    outside = signed_distance(hull > 0.5, grid.spacing_mm)
    loss = generator.uniform(*RIM_LOSS) * np.exp(np.minimum(outside, 0) / RIM_REACH_MM)
    return {**dict(zip(TISSUES, maps, strict=True)), "outside": outside, "rim_loss": np.asarray(loss, np.float32)}


def _index(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Voxel indices of points (3, ...) in mm, on an axis-aligned grid."""
    shape = (3,) + (1,) * (points.ndim - 1)
    origin, step = grid.affine[:3, 3].astype(np.float32), np.diag(grid.affine)[:3].astype(np.float32)
    return np.asarray((points - origin.reshape(shape)) / step.reshape(shape))


def _sample(maps: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Linear interpolation of maps (n, X, Y, Z) at voxel indices (3, ...): (n, ...). The edge value continues."""
    return np.stack([ndimage.map_coordinates(m, index, order=1, mode="nearest", output=np.float32) for m in maps])


def _fold(
    generator: np.random.Generator,
    p: Priors,
    grid: Grid,
    at: np.ndarray,
    inside: np.ndarray,
    maps: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tissue fractions gm, wm and csf of an individual, (X, Y, Z) each: the deformed template with sulci of its own.

    at (3, X, Y, Z) is the position of each voxel in the template, in mm. inside (X, Y, Z) is true where tissue can be;
    the fractions are 0 elsewhere. The sulci are the surfaces on which a random field is zero. Near them the probability
    of fluid is raised and that of white matter lowered; far from them that of white matter is raised. The template's
    probabilities are the prior.
    """
    prior = _sample(p.tissues, _index(p.fine, at[:, inside]))
    noise = random_field(generator, grid, SULCUS_FWHM_MM)[0]
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(noise, *grid.spacing_mm)))
    sheet = (np.abs(noise) / (slope + 0.02))[inside]
    outside = maps["outside"][inside]
    cortical = maps["folded"][inside] * np.clip((outside + 32) / 16, 0, 1)
    rim = np.clip(1 - np.abs(outside - 0.5) / 2.5, 0, 1) * np.clip(1 - prior.sum(0), 0, 1)
    prior[2] += SUBARACHNOID * rim  # fluid between the brain and the skull
    brain = np.clip(prior.sum(0), 0, 1)
    odds = np.log(prior + np.array([0.012, 0.012, 0.03], np.float32)[:, None])
    odds[1] += cortical * 0.28 * np.clip(sheet - 3.5, -3.5, 4)
    odds[2] += cortical * (2.6 * np.exp(-np.square(sheet / 1.8)) - 0.7)
    odds *= SHARPEN
    share = np.exp(odds - odds.max(0))
    share *= brain / share.sum(0)
    tissues = np.zeros((3, *grid.shape), np.float32)
    tissues[:, inside] = share
    return tissues[0], tissues[1], tissues[2]


def _atrophy(person: Person, gm: np.ndarray, csf: np.ndarray, maps: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Replace grey matter by fluid; returns gm and csf.

    The loss grows with age and severity everywhere, and with severity more in the hippocampus and the default mode.
    """
    thinning = 0.04 * person.severity + 0.02 * person.decades
    loss = thinning + 0.35 * person.severity * maps["hippocampus"] + 0.15 * person.severity * maps["default_mode"]
    loss = gm * np.clip(loss, 0, 0.9)
    return gm - loss, csf + loss


def _lesions(generator: np.random.Generator, person: Person, grid: Grid, near_ventricle: np.ndarray) -> np.ndarray:
    """White-matter hyperintensities, 0..1: a thresholded random field.

    They are more likely near the ventricles, in older people and at a higher severity. near_ventricle (X, Y, Z) is 1 at
    the ventricles and falls to 0.
    """
    load = 0.35 * person.severity + 0.5 * person.decades + generator.normal(0, 0.5)
    score = random_field(generator, grid, 9.0)[0] + 1.8 * near_ventricle + 0.5 * load - 2.7
    return np.asarray(np.clip(score * 2, 0, 1), np.float32)


def _head(generator: np.random.Generator, grid: Grid, outside: np.ndarray) -> dict[str, np.ndarray]:
    """Volume fractions of scalp, fat and eyes outside a skull without signal, (X, Y, Z) each.

    outside (X, Y, Z) is the distance to the brain's hull in mm, negative inside.
    """
    thickness = random_field(generator, grid, 40.0, 2)
    skull = 7.0 + generator.normal(0, 0.8) + 0.9 * thickness[0]
    scalp_mm = 5.5 + generator.normal(0, 0.8) + 1.2 * thickness[1]
    depth = outside - skull
    xyz = world(grid)
    face = np.clip((xyz[1] - 25) / 25, 0, 1) * np.clip((-20 - xyz[2]) / 20, 0, 1)
    neck = np.clip((-45 - xyz[2]) / 20, 0, 1)
    scalp_mm = scalp_mm + 14 * np.maximum(face, neck)
    layer = np.clip(depth / 1.5 + 0.5, 0, 1) * np.clip((scalp_mm - depth) / 1.5 + 0.5, 0, 1)
    texture = random_field(generator, grid, 10.0)[0]
    fat = layer * np.clip(0.45 + 0.4 * texture, 0, 1)
    eye = np.zeros(grid.shape, np.float32)
    gaze = generator.normal(0, 1.5, 3)
    for side in (-1, 1):
        centre = np.array([side * 32.0, 58.0, -36.0]) + gaze * np.array([side, 1, 1])
        distance = np.sqrt(sum(np.square(xyz[i] - centre[i]) for i in range(3)))
        eye = np.maximum(eye, np.clip((12.0 - distance) / 3 + 0.5, 0, 1))
    eye *= outside > 2
    return {
        "scalp": np.asarray((layer - fat) * (1 - eye), np.float32),
        "fat": np.asarray(fat * (1 - eye), np.float32),
        "eye": np.asarray(eye, np.float32),
    }


def _directions(
    p: Priors, grid: Grid, displacement: np.ndarray, nearest: tuple[np.ndarray, ...], inside: np.ndarray
) -> np.ndarray:
    """Template fibre directions in the participant's space: (2, 3, X, Y, Z), unit length.

    They are multiplied by the inverse of the deformation's Jacobian matrix, to first order.
    """
    nodes = coarse_nodes(grid, NODES_MM)
    jacobian = np.stack([np.stack(np.gradient(d, *nodes.spacing_mm)) for d in displacement])
    jacobian = upsample(jacobian.astype(np.float32), grid)[:, :, inside]
    directions = np.zeros((2, 3, *grid.shape), np.float32)
    for i, name in enumerate(("first", "second")):
        along = p.fibres[name][:, nearest[0], nearest[1], nearest[2]]
        along = along - np.einsum("ijn,jn->in", jacobian, along)  # (1 + J)^-1 to first order
        directions[i][:, inside] = along / (np.linalg.norm(along, axis=0) + 1e-6)
    return directions
