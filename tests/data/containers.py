"""Files that hold rows and their images: Parquet, Arrow, tars, as bytes."""

import io
import json
import tarfile

import pyarrow
import pyarrow.parquet


def parquet(rows: list[dict], group: int = 2) -> bytes:
    """A Parquet file with row groups of `group` rows."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, row_group_size=group)
    return buffer.getvalue()


def arrow(rows: list[dict], batch: int = 2, *, stream: bool = True) -> bytes:
    """An Arrow file as `datasets` writes it (a stream), or of the form that can be read at random."""
    buffer, table = io.BytesIO(), pyarrow.Table.from_pylist(rows)
    opened = (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(buffer, table.schema)
    with opened as writer:
        writer.write_table(table, max_chunksize=batch)
    return buffer.getvalue()


def tar(members: dict[str, bytes | str | dict]) -> bytes:
    """A tar of these members, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, content in members.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
