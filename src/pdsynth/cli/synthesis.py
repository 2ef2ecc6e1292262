"""The verb synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdsynth import files, folders, manifest
from pdsynth.cli.console import DRY_RUN, done, doubtful, error_line, table, without
from pdsynth.cli.following import to_measure
from pdsynth.cli.options import (
    AUTO,
    HERE,
    Device,
    DeviceOption,
    DryRun,
    LayoutOption,
    ModelFolder,
    Overwrite,
    Seed,
    SelectOption,
    Steps,
    Where,
    where_options,
)
from pdsynth.progress import WRITING, progress
from pdsynth.resources import resolve_device
from pdsynth.types import InputError, Modality, Space, counted


@where_options
def synthesize(
    model: ModelFolder,
    path: Annotated[Path, typer.Argument(help="A dataset as for `prepare`, or one scan.", metavar="PATH")],
    out: Annotated[Path, typer.Argument(help="Folder to write, or to extend.", metavar="OUT")],
    to: Annotated[Modality | None, typer.Option(help="Modality to synthesise (default: the missing one).")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draws to write besides the estimate and its SD; for a generative model.")
    ] = 0,
    steps: Steps = 8,
    shell: Annotated[float, typer.Option(min=100, help="b-value of a synthesised dMRI, s/mm^2.")] = 1000,
    space: Annotated[
        Space, typer.Option(help="Write all images in this standard space too, with transforms as files of ITK.")
    ] = Space.NATIVE,
    seed: Seed = 0,
    where: Where = HERE,
    layout: LayoutOption = AUTO,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 2 if a scan is refused.")] = False,
    replace_refused: Annotated[
        bool, typer.Option("--replace-refused", help="Synthesise also the scans that exist but were refused.")
    ] = False,
    select: SelectOption = None,
    participant: Annotated[
        list[str] | None, typer.Option("--participant", help="Only this one, such as sub-01; may be repeated.")
    ] = None,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Synthesise the missing scans of a dataset, or the other modality of one scan; all files are marked synthetic.

    Volumes that the same model made with the same options are not made again. No table of participants is read: the
    diagnosis does not enter synthesis.
    """
    workers = where.workers(path, gpu=device is Device.cuda)
    if workers.remote:
        path = path.absolute()  # the workers of a cluster may start in another folder
    elif device is Device.cuda:
        resolve_device(device.value)  # a missing GPU is an error at once; auto is resolved when torch is loaded
    elif workers.several and not dry_run:
        from pdsynth.workers import load_ahead

        load_ahead("pdsynth.synthesis")
    from pdsynth.cohorts.choice import Select
    from pdsynth.data.splits import FEWEST
    from pdsynth.missing import REPLACE, plan, synthesise_scans
    from pdsynth.outcomes import TABLE, doubts, low_trust, not_made, paired_people, read_outcomes, round_trips, trust
    from pdsynth.report.boilerplate import of_synthesis
    from pdsynth.sources import Options, refuse_other_options
    from pdsynth.weights import model_folder, model_record

    folder = model_folder(model).absolute()
    selection = Select.parse(select)
    options = Options(samples=samples, steps=steps, seed=seed, shell=shell, space=space)
    made_as = options.entries(folder)
    if dry_run:
        folders.refuse_occupied(out, True, [folder, path])
        if not overwrite and manifest.read(out):
            refuse_other_options(out, manifest.read(out), made_as)
        scans = plan(path, to, None if layout == AUTO else layout, replace_refused, selection, participant or ())
        table("To synthesise", ("source", "file"), scans)
        done(
            f"Nothing was written. To synthesise, unless made before: {counted(len(scans), 'scan')}", *without(DRY_RUN)
        )
        return
    with folders.making(
        out,
        overwrite=overwrite,
        update=True,
        resume="give the same command again",
        check_manifest=lambda before: refuse_other_options(out, before, made_as),
        inputs=[folder, path],
    ) as work:
        stamps = manifest.read(work.folder).get("stamps", {})
        with (
            manifest.recorded(
                work.folder, "synthesize", inputs=[folder, path], seed=seed, to=to, made_as=made_as
            ) as entries,
            progress("Synthesising", WRITING) as update,
        ):
            written, refused, finished = synthesise_scans(
                folder,
                path,
                work.folder,
                options,
                to=to,
                layout=None if layout == AUTO else layout,
                device=device.value,
                jobs=workers,
                replace_refused=replace_refused,
                select=selection,
                participants=participant or [],
                progress=update,
                stamps=stamps,
            )
            simulated = bool(files.read_json(work.folder / "dataset_description.json").get("Simulated"))
            entries |= {"stamps": stamps, "model": model_record(folder), "simulated": simulated}
            of_synthesis(work.folder, entries).write(work.folder, simulated)
    if refused:
        table("Refused", ("file", "reason", "remedy"), [(str(r.path), r.reason, r.remedy) for r in refused])
    outcomes = read_outcomes(out / TABLE)
    doubtful(doubts(outcomes), f"; see {TABLE}")
    files_written = counted(len(written), "SYNTHETIC file")
    made_before = f" (made before and kept: those of {counted(finished, 'scan')})" if finished else ""
    listed = f"{TABLE} lists the outcome of each scan, and as round_trip_db how far to trust it"
    if trusted := trust(outcomes, made_as["model_sha256"]):
        listed += f" ({trusted})"
    done(f"{files_written}, research only, in {out}{made_before}; {listed}")
    if number := not_made(outcomes):
        error_line(f"Not synthesised: {counted(number, 'refused scan')}. {REPLACE}.", kind="Warning")
    if low := low_trust(outcomes, made_as["model_sha256"]):
        error_line(low, kind="Warning")
    if strict and refused:
        raise InputError(
            path, f"holds {counted(len(refused), 'refused scan')}", f"repair them; {out / TABLE} lists each"
        )
    if path.is_dir() and (participant or paired_people(outcomes) >= FEWEST):
        done(
            "Measure the model on participants who have both scans before you use these files",
            *to_measure(path, out, model),
        )
        return
    first = ". Look first at the volume with the lowest round_trip_db" if len(round_trips(outcomes)) > 1 else ""
    message = f"Too few participants here have both scans to measure the model{first}"
    done(message, "report", out, "--sources", path)
