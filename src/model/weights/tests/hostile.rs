use std::io::{Cursor, Write};

use fs_err as fs;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::fixture;
use crate::model::weights::{
    FormatError, StateDict,
    archive::Archive,
    pth::{Storages, tensors},
    read,
    select::Selection,
};

/// Reads a file as a bare state dict. The search for a network in it must end too, whatever it
/// finds.
fn decode(file: &[u8]) -> Result<StateDict, FormatError> {
    for key in [None, Some("state_dict.x")] {
        drop(read::decode(file, Selection::ResNet18 { key }));
    }
    read::decode(file, Selection::Whole).map(|found| found.state)
}

/// A `.pth` file around a pickle and storage `0` of four 32-bit floats.
fn pth(program: &[u8]) -> Vec<u8> {
    archive(&[
        ("x/data.pkl", program),
        ("x/byteorder", b"little"),
        ("x/data/0", &[0; 16]),
    ])
}

pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Pickles `{"w": tensor}` where the tensor views storage `0`; `elements` and `sizes` are pickled
/// integers.
fn one_tensor(elements: &[u8], offset: &[u8], shape: &[&[u8]], strides: &[&[u8]]) -> Vec<u8> {
    let mut program = b"\x80\x02}(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
    program.extend(b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu");
    program.extend([elements, b"tQ", offset].concat());
    for sizes in [shape, strides] {
        program.extend([b"(", sizes.concat().as_slice(), b"t"].concat());
    }
    program.extend(b"\x89ccollections\nOrderedDict\n)RtRu.");
    program
}

/// The pickled integer 2^62.
const HUGE: &[u8] = b"\x8a\x08\0\0\0\0\0\0\0\x40";

fn refusal(program: &[u8]) -> String {
    decode(&pth(program)).unwrap_err().to_string()
}

#[test]
fn the_tests_builder_writes_a_readable_file() {
    let state = decode(&pth(&one_tensor(
        b"K\x04",
        b"K\0",
        &[b"K\x02", b"K\x02"],
        &[b"K\x02", b"K\x01"],
    )))
    .unwrap();
    assert_eq!(state["w"].shape, [2, 2]);
    assert_eq!(state["w"].to_f32(), [0.0; 4]);
}

#[test]
fn no_name_of_a_pickle_is_executed() {
    let message = read(&fixture("os_system.pth")).unwrap_err().to_string();
    assert!(
        message.contains("\"posix.system\"") && message.contains("never executed"),
        "{message}"
    );

    for (program, name) in [
        (
            b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.".as_slice(),
            "os.system",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            "builtins.eval",
        ),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
            "__globals__",
        ),
        (
            b"\x80\x02ccollections\nOrderedDict.fromkeys\n.",
            "OrderedDict.fromkeys",
        ),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
    ] {
        let error = decode(&pth(program)).unwrap_err();
        assert!(
            matches!(&error, FormatError::ForbiddenGlobal { name: found } if found.contains(name)),
            "{error}"
        );
    }
    // The instructions that build objects by other ways than REDUCE: INST, OBJ, NEWOBJ, EXT1.
    for instruction in [b"ios\nsystem\n".as_slice(), b"(o", b"\x81", b"\x82\x01"] {
        let message = refusal(&[b"\x80\x02", instruction, b"."].concat());
        assert!(message.contains("pickle instruction 0x"), "{message}");
    }
}

#[test]
fn sizes_that_lie_are_errors() {
    let two_by_two: [&[u8]; 2] = [b"K\x02", b"K\x02"];
    let row_major: [&[u8]; 2] = [b"K\x02", b"K\x01"];
    for (what, program) in [
        ("storage", one_tensor(HUGE, b"K\0", &two_by_two, &row_major)),
        (
            "storage",
            one_tensor(b"K\x05", b"K\0", &two_by_two, &row_major),
        ),
        (
            "past its storage",
            one_tensor(b"K\x04", b"K\x01", &two_by_two, &row_major),
        ),
        (
            "past its storage",
            one_tensor(b"K\x04", HUGE, &two_by_two, &row_major),
        ),
        (
            "past its storage",
            one_tensor(b"K\x04", b"K\0", &two_by_two, &[HUGE, HUGE]),
        ),
        (
            "impossible",
            one_tensor(b"K\x04", b"K\0", &[HUGE, HUGE], &row_major),
        ),
        ("expand", one_tensor(b"K\x04", b"K\0", &[HUGE], &[b"K\0"])),
        (
            "expand",
            one_tensor(b"K\x04", b"K\0", &[b"J\0\0\0\x40"], &[b"K\0"]),
        ),
        (
            "dimensions",
            one_tensor(
                b"K\x04",
                b"K\0",
                &[b"K\x01".as_slice(); 65],
                &[b"K\x01".as_slice(); 65],
            ),
        ),
        (
            "2 dimensions but 1",
            one_tensor(b"K\x04", b"K\0", &two_by_two, &[b"K\x01"]),
        ),
        (
            "size belongs",
            one_tensor(b"K\x04", b"J\xff\xff\xff\xff", &two_by_two, &row_major),
        ),
        (
            "size belongs",
            one_tensor(b"K\x04", b"K\0", &[b"\x8a\x01\xff"], &[b"K\x01"]),
        ),
        ("announced", b"\x80\x02X\xff\xff\xff\xffabc".to_vec()),
        (
            "announced",
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc".to_vec(),
        ),
        ("announced", b"\x80\x04B\xff\xff\xff\x7f".to_vec()),
        ("never kept", b"\x80\x02j\xff\xff\xff\xff.".to_vec()),
    ] {
        let message = refusal(&program);
        assert!(message.contains(what), "expected {what} in: {message}");
    }
}

#[test]
fn many_tensors_may_not_expand_together_either() {
    // 800,000 bytes from one element: less than a small file may expand to, but not twice.
    let tensor = one_tensor(b"K\x04", b"K\0", &[b"J\x40\x0d\x03\0"], &[b"K\0"]);
    assert_eq!(decode(&pth(&tensor)).unwrap()["w"].data.len(), 800_000);

    // The entry's key, tensor and closing instructions once more under the name v.
    let entry = &tensor[b"\x80\x02}(".len()..tensor.len() - b"u.".len()];
    let mut again = entry.to_vec();
    again[b"X\x01\0\0\0".len()] = b'v';
    let program = [b"\x80\x02}(".as_slice(), entry, &again, b"u."].concat();
    assert!(refusal(&program).contains("expand"));
}

#[test]
fn a_dimension_of_length_one_may_have_any_stride() {
    let program = one_tensor(
        b"K\x04",
        b"K\0",
        &[b"K\x01", b"K\x02", b"K\x01"],
        &[HUGE, b"K\x02", HUGE],
    );
    assert_eq!(decode(&pth(&program)).unwrap()["w"].shape, [1, 2, 1]);
}

#[test]
fn broken_programs_are_errors() {
    for (what, program) in [
        ("more from the stack", b"\x80\x02.".as_slice()),
        ("more from the stack", b"\x80\x02K\x01(."),
        ("more from the stack", b"\x80\x02K\x01(q\0"),
        ("lacks a mark", b"\x80\x02t."),
        ("without a value", b"\x80\x02}(K\x01u."),
        ("a dictionary belongs", b"\x80\x02K\x01K\x02K\x03s."),
        ("a list belongs", b"\x80\x02}K\x01a."),
        ("a dictionary belongs", b"\x80\x02]}b."),
        ("not callable", b"\x80\x02K\x01)R."),
        (
            "a tuple belongs",
            b"\x80\x02ccollections\nOrderedDict\nK\x01R.",
        ),
        (
            "OrderedDict with 1 arguments",
            b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        ),
        (
            "calls a storage type",
            b"\x80\x02ctorch\nFloatStorage\nK\x01\x85R.",
        ),
        ("a tuple belongs", b"\x80\x02X\x01\0\0\x000Q."),
        ("five parts", b"\x80\x02)Q."),
        ("does not end", b"\x80\x02ctorch"),
        ("not UTF-8", b"\x80\x02X\x01\0\0\0\xff."),
        ("protocol 5", b"\x80\x05."),
        ("pickle ends", b"\x80\x02}"),
        ("pickle ends", b""),
        ("not a dictionary", b"\x80\x02]."),
        ("no tensors", b"\x80\x02}."),
    ] {
        let message = refusal(program);
        assert!(message.contains(what), "expected {what} in: {message}");
    }
}

#[test]
fn deep_and_circular_values_cost_no_recursion() {
    // 100,000 nested lists, then 100,000 nested tuples, then a dictionary within itself.
    let lists = [
        b"\x80\x02".as_slice(),
        &b"]".repeat(100_000),
        &b"a".repeat(99_999),
        b".",
    ]
    .concat();
    assert!(refusal(&lists).contains("not a dictionary"));
    let tuples = [b"\x80\x02)".as_slice(), &b"\x85".repeat(100_000), b"."].concat();
    assert!(refusal(&tuples).contains("not a dictionary"));
    assert!(refusal(b"\x80\x02}q\0X\x05\0\0\0modelh\0s.").contains("no tensors"));
}

#[test]
fn bombs_reach_the_limit_before_they_fill_the_memory() {
    let values = [b"\x80\x02".as_slice(), &b"]".repeat(250_001)].concat();
    assert!(refusal(&values).contains("more than 250000 values"));
    let recalled = [b"\x80\x02]q\0".as_slice(), &b"h\0".repeat(250_001)].concat();
    assert!(refusal(&recalled).contains("more than 250000 values"));
    let marks = [b"\x80\x02".as_slice(), &b"(".repeat(250_001)].concat();
    assert!(refusal(&marks).contains("more than 250000 values"));

    let unstacked = [b"\x80\x02]".as_slice(), &b")a".repeat(250_000)].concat();
    assert!(refusal(&unstacked).contains("more than 250000 values"));

    let endless = [b"\x80\x02".as_slice(), &b"N0".repeat(25_000_001), b"."].concat();
    assert!(refusal(&endless).contains("more than 50000000 instructions"));
    let kept = [b"\x80\x04N".as_slice(), &[0x94].repeat(250_001)].concat();
    assert!(refusal(&kept).contains("more than 250000 values"));
    let objects = [
        b"\x80\x02cm\nn\nq\0".as_slice(),
        &b"h\0)\x81".repeat(250_001),
    ]
    .concat();
    assert!(refusal(&objects).contains("more than 250000 values"));

    // One list doubled forty times would have 2^40 entries; here it is forty small values.
    let mut doubled = b"\x80\x02]q\0".to_vec();
    for key in 1..=40u8 {
        doubled.extend([b'(', b'h', key - 1, b'h', key - 1, b't', b'q', key]);
    }
    doubled.push(b'.');
    assert!(refusal(&doubled).contains("not a dictionary"));
}

#[test]
fn a_damaged_archive_is_an_error() {
    let program = one_tensor(b"K\x04", b"K\0", &[b"K\x04"], &[b"K\x01"]);
    let whole = pth(&program);
    decode(&whole).unwrap();
    for length in 4..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "cut to {length} bytes");
    }

    let mut flipped = whole.clone();
    let storage = whole
        .windows(8)
        .position(|name| name == b"x/data/0")
        .unwrap();
    flipped[storage + 10] ^= 1;
    assert!(
        decode(&flipped)
            .unwrap_err()
            .to_string()
            .contains("hecksum")
    );

    let missing = archive(&[("x/data.pkl", &program)]);
    assert!(
        decode(&missing)
            .unwrap_err()
            .to_string()
            .contains("\"x/data/0\" is missing")
    );
    let twice = archive(&[("x/data.pkl", &program), ("y/data.pkl", &program)]);
    assert!(
        decode(&twice)
            .unwrap_err()
            .to_string()
            .contains("more than one data.pkl")
    );
    let other = archive(&[("notes.txt", b"hello")]);
    assert!(
        decode(&other)
            .unwrap_err()
            .to_string()
            .contains("without data.pkl")
    );
    let order = archive(&[
        ("x/data.pkl", &program),
        ("x/byteorder", b"pdp"),
        ("x/data/0", &[0; 16]),
    ]);
    assert!(
        decode(&order)
            .unwrap_err()
            .to_string()
            .contains("byte order")
    );
}

#[test]
fn a_directory_that_lies_about_its_length_is_an_error() {
    let mut file = pth(&one_tensor(b"K\x04", b"K\0", &[b"K\x04"], &[b"K\x01"]));
    let end = file.len() - 22;
    file[end + 8..end + 12].copy_from_slice(&[0xff; 4]);
    assert!(matches!(decode(&file), Err(FormatError::Malformed(_))));
}

#[test]
fn entries_that_overlap_are_an_error() {
    let mut file = archive(&[("x/a", &[0; 1_000]), ("x/b", b"")]);
    Archive::open(&file).unwrap();
    // Let the second entry be the first one's thousand bytes once more.
    let entry = file
        .windows(4)
        .rposition(|mark| mark == b"PK\x01\x02")
        .unwrap();
    let size = 1_000u32.to_le_bytes();
    file[entry + 20..entry + 28].copy_from_slice(&[size, size].concat());
    file[entry + 42..entry + 46].copy_from_slice(&[0; 4]);
    let message = decode(&file).unwrap_err().to_string();
    assert!(message.contains("larger than the file"), "{message}");
}

#[test]
fn a_compressed_entry_is_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let deflated =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    writer.start_file("x/data.pkl", deflated).unwrap();
    writer.write_all(&[0; 1_000]).unwrap();
    let file = writer.finish().unwrap().into_inner();
    let message = decode(&file).unwrap_err().to_string();
    assert!(message.contains("compressed zip entry"), "{message}");
}

/// Flips, overwrites, cuts and repeats bytes.
fn mutate(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            3 if bytes.len() > 8 => bytes.truncate(at.max(8)),
            _ => bytes.insert(at, bytes[random.random_range(0..bytes.len())]),
        }
    }
}

const FUZZED: [&str; 8] = [
    "every_dtype.pth",
    "views.pth",
    "state_dict.pth",
    "parameters.pth",
    "protocol4.pth",
    "nested_state_dict.pth",
    "big_endian.pth",
    "every_dtype.safetensors",
];

#[test]
fn mutated_files_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(18);
    let mut refused = 0;
    for name in FUZZED {
        let whole = fs::read(fixture(name)).unwrap();
        for _ in 0..1_000 {
            let mut bytes = whole.clone();
            mutate(&mut bytes, &mut random);
            refused += usize::from(decode(&bytes).is_err());
        }
    }
    // Bytes in padding may change freely, so some files stay readable.
    assert!(
        (1_000..8_000).contains(&refused),
        "{refused} of 8000 refused"
    );
}

#[test]
fn mutated_pickles_never_panic() {
    // The archive's checksums would stop these, so they go past it.
    let mut random = ChaCha8Rng::seed_from_u64(19);
    let mut refused = 0;
    for name in &FUZZED[..7] {
        let file = fs::read(fixture(name)).unwrap();
        let archive = Archive::open(&file).unwrap();
        let directory = archive
            .names()
            .find_map(|entry| entry.strip_suffix("/data.pkl"))
            .unwrap();
        let program = archive.bytes(&format!("{directory}/data.pkl")).unwrap();
        let run = |program: &[u8]| -> Result<StateDict, FormatError> {
            let mut storages = Storages::new(&archive, directory, file.len())?;
            drop(tensors(
                program,
                &mut storages,
                Selection::ResNet18 { key: None },
            ));
            tensors(program, &mut storages, Selection::Whole).map(|found| found.state)
        };
        run(program).unwrap();
        for _ in 0..1_000 {
            let mut program = program.to_vec();
            mutate(&mut program, &mut random);
            refused += usize::from(run(&program).is_err());
        }
    }
    assert!(
        (1_000..7_000).contains(&refused),
        "{refused} of 7000 refused"
    );
}
