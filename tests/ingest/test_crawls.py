"""Oracles: crawls written by hand, with the items that they must give."""

import os
import shutil

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from previts.errors import InputError
from previts.ingest.crawls import CrawlItem, crawl_identity, left_aside, read_crawl

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
def test_a_broken_line_is_named_with_its_number(tmp_path, line, message):
    uri = write(tmp_path / "crawl.csv", f"{HEADER}first,first.mp4,,,,\n{line}\n")
    with pytest.raises(InputError) as error:
        read_crawl(uri)
    assert message in str(error.value)
    assert "line 3" in str(error.value)
    assert uri in str(error.value)


def test_all_broken_lines_are_counted_and_ten_shown(tmp_path):
    uri = write(tmp_path / "crawl.csv", HEADER + "".join(f"v{n},x.mp4,{'no' if n % 2 else 1},,,\n" for n in range(50)))
    with pytest.raises(InputError) as error:
        read_crawl(uri)
    text = str(error.value)
    assert text.startswith("25 broken lines")
    assert text.count("\n  line ") == 10
    assert "line 3:" in text
    assert text.endswith("and 15 more")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "is empty"),
        ("id,file\na,b\n", "not a known format of a crawl"),
        ("video_id,label\na,b\n", "no column url"),
        ('video_id,url\n"a,b\n', "line 2"),
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


def test_the_identity_depends_on_the_content_and_not_on_the_place(tmp_path):
    def identity(folder, name="crawl.csv"):
        uri = str(folder / name)
        return crawl_identity(read_crawl(uri), uri)

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


def test_the_identity_of_objects_depends_on_their_content():
    fs = fsspec.filesystem("memory")
    uri = "memory://corpus/crawl.csv"
    fs.pipe({"/corpus/crawl.csv": b"video_id,url\na,a.mp4\n", "/corpus/a.mp4": b"pixels"})
    try:
        before = crawl_identity(read_crawl(uri), uri)
        assert crawl_identity(read_crawl(uri), uri) == before
        fs.pipe("/corpus/a.mp4", b"more pixels")
        assert crawl_identity(read_crawl(uri), uri) != before
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
