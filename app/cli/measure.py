"""`svsm-attest measure`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from app.cli import terminal
from app.cli.failure import ExitCode, about
from app.cli.files import STDIN, display_name, read_file
from app.cli.inspection.igvm import Measurement, measurement_document, measurement_sheet
from app.cli.inspection.view import render
from app.wire.igvm.file import MAX_SIZE, IgvmFile
from app.wire.igvm.kvm import KvmFault, kvm_faults
from app.wire.igvm.snp import SnpLaunch


def measure(
    files: Annotated[list[Path], typer.Argument(metavar="IGVM...", help="The files (- for standard input).")],
    *,
    native_zero: Annotated[
        bool,
        typer.Option(
            "--native-zero", help="The launch stack uses native zero pages: Vanadium does, QEMU does not."
        ),
    ] = False,
    check_kvm: Annotated[
        bool, typer.Option("--check-kvm", help="Check that QEMU and KVM reach this digest.")
    ] = False,
    as_policy: Annotated[
        bool, typer.Option("--policy", help="Print reference values for a policy, as YAML.")
    ] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Print digest and name alone, a line a file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compute the SEV-SNP launch digest of IGVM files, before the first boot.

    It is what reports of a VM that was started from the file show as MEASUREMENT. Exits with 1 where
    --check-kvm finds that KVM would reach another digest, or where a file's own ID block does not fit.
    """
    if as_policy + bare + as_json > 1:
        raise typer.BadParameter("--policy, --bare and --json exclude one another")
    measured = [_measure(path, native_zero=native_zero, check_kvm=check_kvm) for path in files]
    if as_json:
        terminal.print_json({"native_zero": native_zero, "files": [one.document() for one in measured]})
    elif as_policy:
        typer.echo("\n".join(_policy_lines(measured)))
    elif bare:
        for one in measured:
            typer.echo(f"{one.digest.hex()}  {terminal.visible(one.name)}")
    else:
        terminal.show(*(line for one in measured for line in one.render()))
    problems = [(one.name, problem) for one in measured for problem in one.problems]
    for name, problem in problems:
        terminal.note(terminal.joined(("problem: ", terminal.BAD), f"{name}: {problem}"))
    if problems:
        raise typer.Exit(ExitCode.NOT_AFFIRMING)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    name: str
    label: str
    measurement: Measurement
    native_zero: bool
    kvm: tuple[KvmFault, ...] | None  # None: not asked for

    @property
    def digest(self) -> bytes:
        return self.measurement.digest(native_zero=self.native_zero)

    @property
    def id_block_problems(self) -> tuple[str, ...]:
        return self.measurement.id_block_problems(native_zero=self.native_zero)

    @property
    def problems(self) -> list[str]:
        faults = [f"KVM at 0x{fault.offset:x}: {fault.reason}" for fault in self.kvm or ()]
        return [*faults, *(f"ID block: {problem}" for problem in self.id_block_problems)]

    def document(self) -> dict[str, Any]:
        kvm = None
        if self.kvm is not None:
            kvm = [{"offset": fault.offset, "reason": fault.reason} for fault in self.kvm]
        return {
            "file": self.name,
            "measurement": self.digest.hex(),
            **measurement_document(self.measurement),
            "id_block_problems": list(self.id_block_problems),
            "kvm_faults": kvm,
        }

    def render(self) -> Iterator[RenderableType]:
        yield from render(measurement_sheet(self.measurement), self.name)
        if self.kvm == ():
            yield Text()
            yield terminal.styled("QEMU and KVM reach this digest.", terminal.GOOD)
        yield Text()


def _measure(path: Path, *, native_zero: bool, check_kvm: bool) -> _Measured:
    name = display_name(path)
    raw = read_file(path, MAX_SIZE)
    with about(name, "`svsm-attest inspect` says what the file is."):
        launch = SnpLaunch.of(IgvmFile.parse(raw))
    return _Measured(
        name=name,
        label=name if str(path) == STDIN else path.stem.encode(errors="replace").decode()[:256],
        measurement=Measurement.of(launch),
        native_zero=native_zero,
        kvm=kvm_faults(launch) if check_kvm else None,
    )


def _policy_lines(measured: list[_Measured]) -> Iterator[str]:
    keys = {
        block.id_key.digest.hex(): one
        for one in measured
        if (block := one.measurement.launch.id_block) is not None and not one.id_block_problems
    }
    if keys:
        yield "# Signed for by the ID keys below; take the # away to demand one of them instead of, or with,"
        yield "# the launch digests."
        yield "# policy:"
        yield "#   trusted_id_key_hashes:"
        for digest in keys:
            yield f'#     - "{digest}"'
    yield "reference_values:"
    yield "  measurements:"
    for one in measured:
        yield f'    - value: "{one.digest.hex()}"'
        yield f"      name: {json.dumps(one.label)}"
