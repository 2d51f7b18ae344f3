"""Oracles: crawls written by hand, with the items that they must give."""

import os
import resource
import shutil
import time

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from previts.errors import InputError, RefusedError
from previts.ingest import sources
from previts.ingest.crawl_identity import crawl_identity, read_identified
from previts.ingest.crawls import CrawlItem, check_faults, left_aside, read_crawl

HEADER = "video_id,url,start_seconds,end_seconds,label,split\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_manifest_is_read_in_its_order(tmp_path):
    uri = write(
        tmp_path / "crawl.csv",
        HEADER
        + 'b,https://example.org/b.mp4,1.5,11.5,"playing drums, loud",train\n'
        + "a,videos/a.mp4,,,,\n"
        + "\n"
        + "dir/c,/data/c.mp4,,4,dog,test\n",
    )
    assert read_crawl(uri) == [
        CrawlItem("b", "https://example.org/b.mp4", 1.5, 11.5, "playing drums, loud", "train"),
        CrawlItem("a", f"{tmp_path}/videos/a.mp4", None, None, "", ""),
        CrawlItem("dir/c", "/data/c.mp4", None, 4.0, "dog", "test"),
    ]


def test_columns_may_be_missing_extra_or_in_another_order(tmp_path):
    uri = write(tmp_path / "crawl.csv", "\ufeffnote,url,video_id\nx,gs://bucket/v.mp4,v\n")
    assert read_crawl(uri) == [CrawlItem("v", "gs://bucket/v.mp4", None, None, "", "")]


def test_a_parquet_manifest_equals_its_csv(tmp_path):
    rows = [("a", "a.mp4", 0.0, 10.0, "dog", "train"), ("b", "https://example.org/b", None, None, None, "test")]
    names = HEADER.strip().split(",")
    table = pa.table({name: [row[number] for row in rows] for number, name in enumerate(names)})
    pq.write_table(table, tmp_path / "crawl.parquet")
    text = "\n".join(",".join("" if value is None else str(value) for value in row) for row in rows)
    assert read_crawl(str(tmp_path / "crawl.parquet")) == read_crawl(write(tmp_path / "crawl.csv", HEADER + text))


def test_numeric_ids_of_a_parquet_file_become_text(tmp_path):
    pq.write_table(pa.table({"video_id": [7, 8], "url": ["a", "b"], "label": [1, None]}), tmp_path / "crawl.parquet")
    items = read_crawl(str(tmp_path / "crawl.parquet"))
    assert [(item.video_id, item.label) for item in items] == [("7", "1"), ("8", "")]


def test_the_csv_of_vgg_sound_is_read_as_published(tmp_path):
    uri = write(
        tmp_path / "vggsound.csv",
        '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, loud",train\n--56QUhyDQM,185,x,train\n',
    )
    trimmed = write(tmp_path / "video" / "--0PQM4-hqg_000030.mp4", "")
    whole = write(tmp_path / "a" / "b" / "--56QUhyDQM.webm", "")
    write(tmp_path / "a" / "b" / "c" / "---g-f_I2yQ.mp4", "")  # three levels down: too deep
    assert read_crawl(uri) == [
        CrawlItem(
            "---g-f_I2yQ_000001", "https://www.youtube.com/watch?v=---g-f_I2yQ", 1, 11, "people marching", "test"
        ),
        CrawlItem("--0PQM4-hqg_000030", trimmed, None, None, "waterfall, loud", "train"),
        CrawlItem("--56QUhyDQM_000185", whole, 185, 195, "x", "train"),
    ]


@pytest.mark.parametrize(
    "columns", ["label,youtube_id,time_start,time_end,split", "label,youtube_id,time_start,time_end,split,is_cc"]
)
def test_the_csv_of_kinetics_is_read_as_published(tmp_path, columns):
    extra = ",0" if columns.endswith("is_cc") else ""
    uri = write(
        tmp_path / "train.csv",
        f"{columns}\ntesting apple,---QUuC4vJs,84,94,validation{extra}\nyoga,-3B32lodo2M,59,69,train{extra}\n",
    )
    trimmed = write(tmp_path / "train" / "-3B32lodo2M_000059_000069.mp4", "")
    assert read_crawl(uri) == [
        CrawlItem(
            "---QUuC4vJs_000084_000094",
            "https://www.youtube.com/watch?v=---QUuC4vJs",
            84,
            94,
            "testing apple",
            "validation",
        ),
        CrawlItem("-3B32lodo2M_000059_000069", trimmed, None, None, "yoga", "train"),
    ]


def test_the_test_split_of_kinetics_has_no_labels(tmp_path):
    uri = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\n---QUuC4vJs,84,94,test\n")
    assert [(item.label, item.split) for item in read_crawl(uri)] == [("", "test")]


def test_a_folder_gives_its_videos_at_any_depth(tmp_path):
    for name in ("b.mp4", "dogs/a.MKV", "dogs/deep/c.webm", ".hidden.mp4", ".trash/d.mp4", "notes.txt", "manifest.csv"):
        write(tmp_path / name, "")
    assert read_crawl(str(tmp_path)) == [
        CrawlItem("b", f"{tmp_path}/b.mp4", None, None, "", ""),
        CrawlItem("dogs/a", f"{tmp_path}/dogs/a.MKV", None, None, "dogs", ""),
        CrawlItem("dogs/deep/c", f"{tmp_path}/dogs/deep/c.webm", None, None, "deep", ""),
    ]


def test_urls_of_a_crawl_in_an_object_store_are_in_the_store():
    fs = fsspec.filesystem("memory")
    fs.pipe({"/corpus/crawl.csv": b"video_id,url\na,videos/a.mp4\n", "/corpus/videos/a.mp4": b"x"})
    try:
        assert [item.url for item in read_crawl("memory://corpus/crawl.csv")] == ["memory://corpus/videos/a.mp4"]
        assert [item.url for item in read_crawl("memory://corpus")] == ["memory:///corpus/videos/a.mp4"]
    finally:
        fs.rm("/corpus", recursive=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,,,,,", "url is empty"),
        (",x.mp4,,,,", "0 characters"),
        ("a,x.mp4,soon,,,", "start_seconds 'soon' is not a number"),
        ("a,x.mp4,-1,,,", "start_seconds '-1' is not a number of seconds >= 0"),
        ("a,x.mp4,nan,,,", "start_seconds 'nan'"),
        ("a,x.mp4,5,5,,", "end_seconds 5 must be greater than start_seconds 5"),
        ("a,x.mp4,,inf,,", "end_seconds 'inf'"),
        ("../a,x.mp4,,,,", "without '.', '..'"),
        ("/a,x.mp4,,,,", "without '.', '..'"),
        ("a\\b,x.mp4,,,,", "without backslashes"),
        ("first,x.mp4,,,,", "also on line 2; ids must differ"),
        ("a,x.mp4", "2 fields, expected 6"),
        ("a,x.mp4,,,,,,", "8 fields, expected 6"),
        ("a" * 300 + ",x.mp4,,,,", "300 characters, allowed are 1 to 200"),
    ],
)
def test_a_broken_line_becomes_an_item_with_its_number_and_the_others_stay(tmp_path, line, message):
    uri = write(tmp_path / "crawl.csv", f"{HEADER}first,first.mp4,,,,\n{line}\nlast,last.mp4,,,,\n")
    first, broken, last = read_crawl(uri)
    assert message in broken.fault
    assert broken.fault.startswith("line 3: ")
    assert len(broken.fault) < 400
    assert broken.video_id == "broken-line-3"
    assert [first, last] == [
        CrawlItem(name, f"{tmp_path}/{name}.mp4", None, None, "", "") for name in ("first", "last")
    ]
    check_faults([first, broken, last], uri, 0.5)
    with pytest.raises(InputError, match="1 broken lines") as error:
        check_faults([first, broken, last], uri, 0.3)
    assert broken.fault in str(error.value)


def test_broken_lines_are_counted_and_ten_shown_if_there_are_too_many(tmp_path):
    uri = write(tmp_path / "crawl.csv", HEADER + "".join(f"v{n},x.mp4,{'no' if n % 2 else 1},,,\n" for n in range(50)))
    items = read_crawl(uri)
    assert [bool(item.fault) for item in items] == [False, True] * 25
    assert len({item.video_id for item in items}) == 50
    with pytest.raises(InputError) as error:
        check_faults(items, uri, 0.4)
    text = str(error.value)
    assert text.startswith("25 broken lines")
    assert text.count("\n  line ") == 10
    assert "line 3:" in text
    assert text.endswith("and 15 more")


def test_a_table_with_broken_lines_only_is_refused(tmp_path):
    with pytest.raises(InputError, match="2 broken lines"):
        read_crawl(write(tmp_path / "crawl.csv", HEADER + "a,x.mp4,soon,,,\nb,,,,,\n"))


def test_a_broken_line_keeps_an_id_of_its_own(tmp_path):
    uri = write(tmp_path / "crawl.csv", HEADER + "a,,,,,\nbroken-line-2,x.mp4,,,,\n")
    assert [(item.video_id, bool(item.fault)) for item in read_crawl(uri)] == [
        ("broken-line-2x", True),
        ("broken-line-2", False),
    ]


SECONDS = {
    "0": 0.0, "1.50": 1.5, ".5": 0.5, "5.": 5.0, "+3": 3.0, "1e2": 100.0, "": None,
    "nan": "", "inf": "", "-inf": "", "-1": "", "-0.1": "", "1e400": "", "1e8": "", "True": "", "false": "", "1,5": "",
    "1_0": "", "\u0661\u0662": "", "0x10": "", "ten": "", "1.5.": "", "9" * 5000: "", "1 2": "",
}  # fmt: skip


@pytest.mark.parametrize("text", SECONDS)
def test_only_plain_numbers_are_seconds(tmp_path, text):
    uri = write(tmp_path / "crawl.csv", f'{HEADER}good,x.mp4,,,,\na,x.mp4,"{text}",,,\n')
    _, item = read_crawl(uri)
    if SECONDS[text] == "":
        assert "start_seconds" in item.fault
    else:
        assert (item.start_seconds, item.fault) == (SECONDS[text], "")


def hostile_csv(name):
    """Return the bytes of a CSV file whose first line is good, and the part of its fault or of the error."""
    head = HEADER.encode() + b"good,x.mp4,,,,\n"
    return {
        "long id": (head + b"a" * 10_000_000 + b",x.mp4,,,,\n", "10000000 characters"),
        "long url": (head + b"a," + b"u" * 10_000_000 + b",,,,\n", "allowed are 8192"),
        "long label": (head + b"a,x.mp4,,," + b"l" * 2000 + b",\n", "label 'lll"),
        "NUL": (head + b"a\0b,x.mp4,,,,\n", "printable"),
        "NUL in a url": (head + b"a,x\0.mp4,,,,\n", "unprintable"),
        "one line of another encoding": (head + "é,x.mp4,,,,\n".encode("latin-1"), "is not UTF-8"),
        "wrong quotes": (head + b'"a"b,x.mp4,,,,\n', "the quotes are wrong"),
        "quotes over several lines": (head + b'"a\nb,\nc"x,x.mp4,,,,\n', "the quotes are wrong up to line 5"),
        "a million fields": (head + b"," * 1_000_000 + b"\n" + b"a," + b"," * 1_000_000 + b"\n", "expected 6"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "long id", "long url", "long label", "NUL", "NUL in a url", "one line of another encoding", "wrong quotes",
        "quotes over several lines", "a million fields",
    ],
)  # fmt: skip
def test_one_hostile_line_does_not_refuse_the_table(tmp_path, name):
    data, message = hostile_csv(name)
    (tmp_path / "crawl.csv").write_bytes(data + b"last,x.mp4,,,,\n")
    good, broken, last = read_crawl(str(tmp_path / "crawl.csv"))
    assert (good.video_id, good.fault, last.video_id, last.fault) == ("good", "", "last", "")
    assert message in broken.fault
    assert len(broken.fault) < 400


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER.encode("utf-16"), "UTF-16"),
        (HEADER.encode() + b'a,"x.mp4,,,,\nb,x.mp4,,,,\n', "line 2: a quote is not closed"),
        (b"video_id,url,url\na,b,c\n", "column url twice"),
        (b"\0\0\0", "not a known format"),
        (b"video_id," + b"," * 1_000_000 + b"\na,b\n", "no column url"),
        (b",".join(b"c%d" % n for n in range(100_000)) + b"\n", "not a known format"),
    ],
)
def test_a_table_that_is_broken_as_a_whole_is_refused_on_one_screen(tmp_path, data, message):
    (tmp_path / "crawl.csv").write_bytes(data)
    with pytest.raises(InputError) as error:
        read_crawl(str(tmp_path / "crawl.csv"))
    assert message in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_first_line_that_is_broken_does_not_hide_the_format_of_vgg_sound(tmp_path):
    uri = write(tmp_path / "v.csv", "---g-f_I2yQ,soon,people marching,test\n--0PQM4-hqg,30,waterfall,train\n")
    broken, good = read_crawl(uri)
    assert "start 'soon'" in broken.fault
    assert good.start_seconds == 30


def parquet(tmp_path, **columns):
    names = {"video_id": ["a", "b", "c"], "url": ["x", "x", "x"]} | columns
    pq.write_table(pa.table(names), tmp_path / "crawl.parquet")
    return str(tmp_path / "crawl.parquet")


@pytest.mark.parametrize(
    ("name", "column", "faults"),
    [
        ("label", pa.array([["x"], None, []]), [0, 2]),
        ("label", pa.array(["x", None, "x"]).dictionary_encode(), []),
        ("label", pa.array([b"x", None, b"\xff"]), [2]),
        ("label", pa.array([None, None, None]), []),
        ("label", pa.array([{"x": 1}, None, {"x": 2}]), [0, 2]),
        ("start_seconds", pa.array([True, None, False]), [0, 2]),
        ("start_seconds", pa.array([1.5, float("nan"), float("inf")]), [2]),
        ("start_seconds", pa.array(["1", "-1", "x"]), [1, 2]),
        ("start_seconds", pa.array([None, 10, 2**62]), [2]),
        ("start_seconds", pa.array([None, 2**62 + 1, 5], pa.timestamp("ns")), [1, 2]),
        ("start_seconds", pa.array([None, 5, 5], pa.duration("s")), [1, 2]),
        ("video_id", pa.array(["a", None, "a"]), [1, 2]),
        ("video_id", pa.array([b"a", b"b", b"c"]), []),
        ("url", pa.array(["x", "", "\0"]), [1, 2]),
    ],
)
def test_values_of_any_type_in_a_parquet_file_are_text_or_a_fault(tmp_path, name, column, faults):
    items = read_crawl(parquet(tmp_path, **{name: column}))
    assert [number for number, item in enumerate(items) if item.fault] == faults
    assert all(name in item.fault for item in items if item.fault)


def test_text_of_a_parquet_file_that_is_not_utf8_is_a_fault_of_its_line(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"], pa.binary()).buffers())
    assert [bool(item.fault) for item in read_crawl(parquet(tmp_path, label=broken))] == [False, True, False]


def test_a_small_parquet_file_with_a_long_text_many_times_is_read(tmp_path):
    rows = 50_000  # 50 GB of text, if each row had its own
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 1_000_000]))
    names = {"video_id": pa.array([str(number % 2) for number in range(rows)]), "url": long}
    pq.write_table(pa.table(names), tmp_path / "crawl.parquet", dictionary_pagesize_limit=1 << 30)
    assert os.path.getsize(tmp_path / "crawl.parquet") < 10_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="50000 broken lines"):
        read_crawl(str(tmp_path / "crawl.parquet"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 << 20  # KiB


def test_a_table_with_too_many_rows_is_refused(tmp_path):
    nothing = pa.nulls(10_000_001, pa.string())
    pq.write_table(pa.table({"video_id": nothing, "url": nothing}), tmp_path / "crawl.parquet")
    with pytest.raises(InputError, match="more than 10000000 rows"):
        read_crawl(str(tmp_path / "crawl.parquet"))


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["video_id", "url", "url"]), tmp_path / "crawl.parquet")
    with pytest.raises(InputError, match="column url twice"):
        read_crawl(str(tmp_path / "crawl.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "is empty"),
        ("id,file\na,b\n", "not a known format of a crawl"),
        ("video_id,label\na,b\n", "no column url"),
        ('video_id,url\n"a,b\n', "line 2: a quote is not closed"),
        ("youtube_id,time_start,time_end,split\nshort,1,2,train\n", "must be 11 letters"),
        ("youtube_id,time_start,time_end,split\n---QUuC4vJs,,2,train\n", "time_start is empty"),
        ("youtube_id,time_start,time_end,split\n---QUuC4vJs,9,2,train\n", "time_end 2 must be greater"),
    ],
)
def test_a_table_that_is_not_a_crawl_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read_crawl(write(tmp_path / "crawl.csv", text))
    assert message in str(error.value)


def test_other_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="no crawl at"):
        read_crawl(str(tmp_path / "missing.csv"))
    with pytest.raises(InputError, match="is not a crawl; expected a folder"):
        read_crawl(write(tmp_path / "list.txt", "a"))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no videos in"):
        read_crawl(str(tmp_path / "nothing"))
    (tmp_path / "latin.csv").write_bytes("video_id,url\né,x\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_crawl(str(tmp_path / "latin.csv"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet"):
        read_crawl(str(tmp_path / "broken.parquet"))


def identity_of(uri):
    return crawl_identity(read_identified(uri))


def test_the_identity_depends_on_the_content_and_not_on_the_place(tmp_path):
    def identity(folder, name="crawl.csv"):
        uri = str(folder / name)
        return identity_of(uri)

    write(tmp_path / "one" / "crawl.csv", "video_id,url\na,a.mp4\nb,https://example.org/b.mp4\n")
    write(tmp_path / "one" / "a.mp4", "pixels")
    before = identity(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert identity(tmp_path / "two") == before
    write(tmp_path / "two" / "a.mp4", "Pixels")
    assert identity(tmp_path / "two") != before
    write(tmp_path / "one" / "crawl.csv", "video_id,url\na,a.mp4\nb,https://example.org/c.mp4\n")
    assert identity(tmp_path / "one") != before
    (tmp_path / "two" / "a.mp4").unlink()
    assert identity(tmp_path / "two") != before


def test_the_identity_reads_only_files_that_the_crawl_may_name_and_each_once(tmp_path, monkeypatch):
    monkeypatch.delenv("PREVITS_LOCAL_FILES", raising=False)
    other = tmp_path / "other.mp4"
    write(other, "pixels")
    write(tmp_path / "crawl" / "big.mp4", "")
    os.truncate(tmp_path / "crawl" / "big.mp4", 50 << 20)  # without blocks on the disk
    many = "".join(f"big{n},big.mp4\n" for n in range(2_000))
    rows = f"video_id,url\na,/proc/self/pagemap\nb,{other}\nc,/dev/zero\nd,http://[::1/x\ne,file://[x/y\n" + many
    uri = write(tmp_path / "crawl" / "crawl.csv", rows)
    started = time.process_time()
    before = identity_of(uri)
    assert time.process_time() - started < 5
    write(other, "changed")
    assert identity_of(uri) == before
    monkeypatch.setenv("PREVITS_LOCAL_FILES", str(tmp_path))
    allowed = identity_of(uri)
    write(other, "changed again")
    assert len({before, allowed, identity_of(uri)}) == 3


def test_the_identity_of_objects_depends_on_their_content():
    fs = fsspec.filesystem("memory")
    uri = "memory://corpus/crawl.csv"
    fs.pipe({"/corpus/crawl.csv": b"video_id,url\na,a.mp4\n", "/corpus/a.mp4": b"pixels"})
    try:
        before = identity_of(uri)
        assert identity_of(uri) == before
        fs.pipe("/corpus/a.mp4", b"more pixels")
        assert identity_of(uri) != before
    finally:
        fs.rm("/corpus", recursive=True)


def test_every_file_of_a_folder_gets_a_different_id(tmp_path):
    names = ["a.mov", "a.mp4", "tab\there.mp4", "back\\slash.mp4", "x" * 220 + ".mp4", "plain.mp4"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    items = read_crawl(str(tmp_path))
    assert sorted(item.url.rsplit("/", 1)[1] for item in items) == sorted(names)
    ids = [item.video_id for item in items]
    assert len(set(ids)) == len(names)
    assert {"a", "plain"} < set(ids)
    assert all(len(video_id) <= 200 and video_id.isprintable() for video_id in ids)
    assert ids == [item.video_id for item in read_crawl(str(tmp_path))]


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff.mp4", "wb") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        read_crawl(str(tmp_path))


def test_a_folder_of_camera_files_is_read_and_the_rest_is_counted(tmp_path, capsys):
    names = ["a.MTS", "b.m2ts", "c.VOB", "d.mxf", "e.asf", "f.3g2", "g.f4v", "h.DIVX", "i.dv", "j.mp4", "k.ogv"]
    for name in [*names, "._a.MTS", ".DS_Store", "__MACOSX/a.MTS", "Thumbs.db", "x/Desktop.ini", "x/readme.txt", "y"]:
        write(tmp_path / name, "")
    assert [item.url.rsplit("/", 1)[1] for item in read_crawl(str(tmp_path))] == names
    said = f"left aside in {tmp_path}: 5 hidden, 1 .txt, 1 without an ending"
    assert said in capsys.readouterr().err
    assert str(left_aside(str(tmp_path))) == said.split(": ")[1]


@pytest.mark.parametrize("kind", ["folder", "manifest", "file URL"])
@pytest.mark.parametrize(
    "name",
    [
        "\u732b\u30001.mp4",  # a wide space
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.mp4",  # a Persian word with a joiner
        "\U0001f468\u200d\U0001f469.mp4",
        "a\u00a0b\u00ad.mp4",
    ],
)
def test_names_with_wide_spaces_and_joiners_are_read(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"x")
    url = (tmp_path / name).as_uri() if kind == "file URL" else name
    uri = str(tmp_path) if kind == "folder" else write(tmp_path / "crawl.csv", f"{HEADER}a,{url},,,,\n")
    (item,) = read_crawl(uri)
    assert item.fault == ""
    assert sources.source_of(item.url, item.reach) == sources.LocalFile(str(tmp_path / name), str(tmp_path))


def test_whole_numbers_of_a_column_with_a_gap_have_no_decimal_point(tmp_path):
    columns = {"video_id": [7.0, 8.0, 9.5], "url": ["a", "b", "c"], "label": [1.0, None, 3.0]}
    pq.write_table(pa.table(columns), tmp_path / "crawl.parquet")
    items = read_crawl(str(tmp_path / "crawl.parquet"))
    assert [(item.video_id, item.label) for item in items] == [("7", "1"), ("8", ""), ("9.5", "3")]


@pytest.mark.parametrize(
    ("relative", "absolute"),
    [
        ("./videos/a.mp4", "memory://corpus/lists/videos/a.mp4"),
        ("x/../a.mp4", "memory://corpus/lists/a.mp4"),
        ("a b%20c.mp4", "memory://corpus/lists/a b%20c.mp4"),
    ],
)
def test_a_relative_path_in_a_store_means_the_same_as_on_the_disk(relative, absolute):
    fs = fsspec.filesystem("memory")
    fs.pipe("/corpus/lists/crawl.csv", f"{HEADER}a,{relative},,,,\nb,../out.mp4,,,,\n".encode())
    try:
        item, outside = read_crawl("memory://corpus/lists/crawl.csv")
        assert sources.source_of(item.url, item.reach) == sources.StoredObject(absolute)
        with pytest.raises(RefusedError, match="not below the folder of the crawl"):
            sources.source_of(outside.url, outside.reach)
    finally:
        fs.rm("/corpus", recursive=True)
