"""What verify says: one line where all is well, else a table of the differences."""

from typing import Any

from swaa_convert.errors import one_line
from swaa_convert.verify.verify import Verdict


def fine(verdict: Verdict) -> str:
    """The one line of a repo that is what was converted; checks that were skipped say so."""
    checks = sorted(verdict.checks, key=lambda check: check.skipped)
    return one_line(f"{verdict.repo.name} is what was converted: {'; '.join(check.said for check in checks)}")


def table(verdict: Verdict) -> str:
    """A row for each check, and under it a row for each difference."""
    made = f"converted by swaa-convert {verdict.manifest.tool} from {_source(verdict)}"
    rows = [one_line(f"{verdict.repo.name}, {made}"), ""]
    for check in verdict.checks:
        rows.append(f"{check.name:14}{check.outcome:9}{one_line(check.said)}")
        width = max((len(one_line(one.thing)) for one in check.differences), default=0)
        rows += [f"    {one_line(one.thing):{width}}  {one_line(one.what)}" for one in check.differences]
    return "\n".join(rows)


def document(verdict: Verdict) -> dict[str, Any]:
    """Everything for programs."""
    return {
        "folder": str(verdict.repo.root),
        "ok": verdict.fine,
        "source": dict(verdict.manifest.source),
        "converted_by": verdict.manifest.tool,
        "checks": [check.as_json() for check in verdict.checks],
    }


def _source(verdict: Verdict) -> str:
    source = verdict.manifest.source
    commit = f" at {source['revision']}" if source.get("revision") else ""
    return f"{source.get('id') or source.get('name')}{commit}"
