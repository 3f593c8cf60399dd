use std::collections::BTreeMap;

use fs_err as fs;

use super::{fixture, hostile::archive};
use crate::model::{
    layout::layout,
    weights::{
        FormatError, Found, Mismatch, archive::Archive, check_shapes, read::decode,
        select::Selection, without_head,
    },
};

/// The size of the storage that all tensors view, large enough that they do not expand too much.
const STORAGE: usize = 4_000_000;

/// Instructions that push a string.
fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [b"X", length.as_slice(), text.as_bytes()].concat()
}

/// Instructions that push a dictionary.
fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let entries = entries
        .into_iter()
        .map(|(key, value)| [text(key), value].concat());
    [
        b"}(".to_vec(),
        entries.collect::<Vec<_>>().concat(),
        b"u".to_vec(),
    ]
    .concat()
}

/// Instructions that push a tensor whose elements are all the storage's first byte.
fn tensor(shape: &[usize]) -> Vec<u8> {
    let size = |size: usize| [b"J", i32::try_from(size).unwrap().to_le_bytes().as_slice()].concat();
    let sizes = |sizes: Vec<usize>| {
        let all: Vec<u8> = sizes.into_iter().flat_map(size).collect();
        [b"(".as_slice(), &all, b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nByteStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        size(STORAGE),
        b"tQK\0".to_vec(),
        sizes(shape.to_vec()),
        sizes(vec![0; shape.len()]),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A ResNet18 whose names have a prefix.
fn network(prefix: &str) -> Vec<(String, Vec<u8>)> {
    layout(1)
        .into_iter()
        .map(|(name, shape)| (format!("{prefix}{name}"), tensor(&shape)))
        .collect()
}

fn named(tensors: &[(String, Vec<u8>)]) -> Vec<u8> {
    dict(
        tensors
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    )
}

/// A `.pth` file of this value.
fn pth(value: &[u8]) -> Vec<u8> {
    let program = [b"\x80\x02", value, b"."].concat();
    archive(&[("x/data.pkl", &program), ("x/data/0", &vec![1; STORAGE])])
}

fn find(value: &[u8], key: Option<&str>) -> Result<Found, FormatError> {
    decode(&pth(value), Selection::ResNet18 { key })
}

/// The whole network, found in this value.
fn found(value: &[u8], key: Option<&str>) -> Found {
    let found = find(value, key).unwrap();
    check_shapes(&found.state, &layout(1), &Mismatch::default()).unwrap();
    found
}

fn refusal(value: &[u8], key: Option<&str>) -> String {
    find(value, key).unwrap_err().to_string()
}

#[test]
fn a_prefix_of_all_names_is_removed() {
    for prefix in [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "net.",
        "backbone.",
        "encoder_q.",
        "module.encoder_q.",
        "student.backbone.",
        "layer1.0.",
    ] {
        let found = found(&named(&network(prefix)), None);
        assert_eq!((found.place.as_str(), found.prefix.as_str()), (".", prefix));
    }
}

#[test]
fn a_state_dict_is_found_in_containers_within_containers() {
    let plain = || named(&network("module."));
    for key in [
        "state_dict",
        "model_state_dict",
        "model",
        "net",
        "weights",
        "params",
        "model_ema",
        "ema",
        "some thing",
    ] {
        let others = [
            ("epoch", b"K\x03".to_vec()),
            ("best", tensor(&[])),
            ("queue", tensor(&[128, 9])),
        ];
        let once = dict(others.clone().into_iter().chain([(key, plain())]));
        assert_eq!(found(&once, None).place, key);
        let state = dict([("exp_avg", tensor(&[64])), ("step", tensor(&[]))]);
        // An optimizer's state has numbers as keys.
        let state = [b"}K\x01".to_vec(), state, b"s".to_vec()].concat();
        let optimizer = dict([("state", state), ("param_groups", b"]".to_vec())]);
        let twice = dict([("optimizer", optimizer), ("saved", once)]);
        assert_eq!(found(&twice, None).place, format!("saved.{key}"));
    }
}

#[test]
fn several_networks_are_listed_and_the_key_names_one() {
    let state = || named(&network(""));
    let two = dict([
        ("model", state()),
        ("model_ema", dict([("module", state())])),
    ]);
    let message = refusal(&two, None);
    assert!(
        message.contains("\"model\", \"model_ema.module\"") && message.contains("spec.init.key"),
        "{message}"
    );
    assert_eq!(
        found(&two, Some("model_ema.module")).place,
        "model_ema.module"
    );
    assert_eq!(found(&two, Some("model")).place, "model");

    let momentum = [network("module.encoder_q."), network("module.encoder_k.")].concat();
    let momentum = dict([("state_dict", named(&momentum))]);
    let message = refusal(&momentum, None);
    for place in [
        "\"state_dict.module.encoder_q\"",
        "\"state_dict.module.encoder_k\"",
    ] {
        assert!(message.contains(place), "{message}");
    }
    for key in [
        "state_dict.module.encoder_q",
        "module.encoder_q",
        "module.encoder_q.",
    ] {
        assert_eq!(found(&momentum, Some(key)).prefix, "module.encoder_q.");
    }
    assert!(refusal(&momentum, Some("state_dict")).contains("several networks"));

    let nested = dict(
        [("student", dict([("backbone", state())]))]
            .into_iter()
            .chain(
                network("")
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.clone())),
            ),
    );
    assert!(refusal(&nested, None).contains("\".\", \"student.backbone\""));
    assert_eq!(found(&nested, Some(".")).place, ".");
}

#[test]
fn the_same_dictionary_under_two_keys_is_one_network() {
    let first = [named(&network("")), b"q\0".to_vec()].concat();
    let both = dict([("model", first), ("ema", b"h\0".to_vec())]);
    assert_eq!(found(&both, None).place, "model");
    assert_eq!(found(&both, Some("ema")).state.len(), 122);
}

#[test]
fn an_unknown_key_is_refused_with_the_known_places() {
    let file = dict([
        ("model", named(&network(""))),
        ("teacher", named(&network(""))),
    ]);
    let message = refusal(&file, Some("student"));
    assert!(
        message.contains("got \"student\"") && message.contains("\"model\", \"teacher\""),
        "{message}"
    );
}

#[test]
fn names_with_different_prefixes_are_refused_with_the_prefixes() {
    let mut mixed = network("");
    let moved = mixed
        .iter()
        .position(|(name, _)| name == "bn1.weight")
        .unwrap();
    mixed[moved].0 = "module.bn1.weight".to_owned();
    let message = refusal(&named(&mixed), None);
    assert!(
        message.contains("no prefix (121 names")
            && message.contains("\"module.\" (1 name \"module.bn1.weight\")"),
        "{message}"
    );

    // Half of them.
    let mut halves = network("");
    for (name, _) in halves.iter_mut().skip(61) {
        name.insert_str(0, "module.");
    }
    let message = refusal(&named(&halves), None);
    assert!(
        message.contains("no prefix (61") && message.contains("\"module.\" (61"),
        "{message}"
    );
}

#[test]
fn tensors_outside_the_prefix_are_refused_and_the_key_leaves_them_out() {
    let mut beside = network("backbone.");
    beside.push(("projector.0.weight".to_owned(), tensor(&[8, 8])));
    beside.push(("queue".to_owned(), tensor(&[4])));
    let message = refusal(&named(&beside), None);
    for part in [
        "\"backbone.\" (122 names",
        "\"projector.\" (1 name \"projector.0.weight\")",
        "no prefix (1 name \"queue\")",
        "set spec.init.key to \"backbone\"",
    ] {
        assert!(message.contains(part), "expected {part} in: {message}");
    }
    assert_eq!(found(&named(&beside), Some("backbone")).state.len(), 122);
}

#[test]
fn tensors_within_the_prefix_that_the_network_lacks_are_surplus() {
    let mut more = network("net.");
    more.push((
        "net.layer3.2.conv1.weight".to_owned(),
        tensor(&[256, 256, 3, 3]),
    ));
    more.push(("net.fc.2.weight".to_owned(), tensor(&[128, 512])));
    let found = find(&named(&more), None).unwrap();
    let error = check_shapes(&found.state, &layout(1), &Mismatch::default());
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("2 surplus (\"fc.2.weight\", \"layer3.2.conv1.weight\")"),
        "{message}"
    );
}

#[test]
fn a_head_of_another_kind_does_not_hide_the_network() {
    let mut contrastive = network("encoder_q.");
    contrastive.retain(|(name, _)| !name.contains(".fc."));
    contrastive.push(("encoder_q.fc.0.weight".to_owned(), tensor(&[512, 512])));
    contrastive.push(("encoder_q.fc.2.weight".to_owned(), tensor(&[128, 512])));
    let found = find(&named(&contrastive), None).unwrap();
    assert_eq!(found.prefix, "encoder_q.");
    assert_eq!(without_head(found.state).len(), 120);
}

#[test]
fn another_network_is_described_by_what_is_missing_and_misshapen() {
    let mut wide = network("module.");
    wide[0].1 = tensor(&[32, 3, 7, 7]);
    let found = find(&dict([("model", named(&wide))]), None).unwrap();
    let error = check_shapes(&found.state, &layout(1), &Mismatch::default());
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("1 misshapen (conv1.weight is [32, 3, 7, 7], expected [64, 3, 7, 7])"),
        "{message}"
    );
    assert!(!message.contains("missing"), "{message}");
}

#[test]
fn a_module_in_place_of_a_state_dict_is_named() {
    let module = b"ctorchvision.models.resnet\nResNet\n)\x81}b".to_vec();
    for beside in [b"K\x03".to_vec(), tensor(&[2])] {
        let file = dict([("epoch", beside), ("model", module.clone())]);
        let message = refusal(&file, None);
        assert!(
            message.contains("\"model\" is \"torchvision.models.resnet.ResNet\"")
                && message.contains("state_dict()"),
            "{message}"
        );
    }
}

#[test]
fn tensors_are_read_beside_objects_of_any_class() {
    // Python's own pickles of what training scripts save, in protocol 2 and 4.
    for name in ["objects.pth", "objects4.pth"] {
        let file = fs::read(fixture(name)).unwrap();
        let archive = Archive::open(&file).unwrap();
        let program = archive.bytes("archive/data.pkl").unwrap();
        for class in [
            "argparse",
            "PosixPath",
            "datetime",
            "defaultdict",
            "Attributes",
            "Namespace",
        ] {
            let is_named = program
                .windows(class.len())
                .any(|part| part == class.as_bytes());
            assert!(is_named, "{name} has no {class}");
        }
        let found = decode(&file, Selection::Whole).unwrap();
        assert_eq!(found.place, "state_dict");
        assert_eq!(found.state["bn.running_var"].shape, [2]);
    }
}

#[test]
fn entries_of_a_state_dict_that_are_not_tensors_are_ignored() {
    let mut mixed = network("");
    mixed.push(("epoch".to_owned(), b"K\x03".to_vec()));
    mixed.push(("args".to_owned(), b"cargparse\nNamespace\n)\x81}b".to_vec()));
    assert_eq!(found(&named(&mixed), None).state.len(), 122);
}

#[test]
fn a_subclass_of_dict_has_tensors_too() {
    let class = b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R".to_vec();
    let plain = named(&network(""));
    let of_class = [class, plain[1..].to_vec()].concat();
    assert_eq!(found(&of_class, None).state.len(), 122);
}

#[test]
fn tensors_with_attributes_are_tensors() {
    let plain = tensor(&[64, 3, 7, 7]);
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n".len();
    // _rebuild_from_type_v2(_rebuild_tensor_v2, Tensor, (...), {"tag": None})
    let from_type = [
        b"ctorch._tensor\n_rebuild_from_type_v2\n(".to_vec(),
        plain[..call].to_vec(),
        b"ctorch\nTensor\n".to_vec(),
        plain[call..plain.len() - 1].to_vec(),
        dict([("tag", b"N".to_vec())]),
        b"tR".to_vec(),
    ]
    .concat();
    let with_state = [
        b"ctorch._utils\n_rebuild_parameter_with_state\n(".to_vec(),
        plain,
        b"\x88ccollections\nOrderedDict\n)R".to_vec(),
        dict([("tag", b"N".to_vec())]),
        b"tR".to_vec(),
    ]
    .concat();
    for first in [from_type, with_state] {
        let mut tensors = network("");
        tensors[0].1 = first;
        found(&named(&tensors), None);
    }
}

#[test]
fn a_history_of_many_numbers_is_read() {
    let number = b"G?\xe0\0\0\0\0\0\0".repeat(1_000);
    let batch = [b"(".as_slice(), &number, b"e"].concat();
    let history = [b"]".to_vec(), batch.repeat(600)].concat();
    found(
        &dict([("losses", history), ("state_dict", named(&network("")))]),
        None,
    );
}

/// Files made to run something, each with a network beside it.
#[test]
fn no_name_of_a_pickle_is_executed_beside_a_network() {
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("ran");
    let command = text(&format!("touch {}", marker.display()));
    let wrapped = |before: &[u8], after: &[u8]| [before, &command, after].concat();
    let hostile: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("reduce", wrapped(b"cos\nsystem\n", b"\x85R")),
        (
            "stack global",
            wrapped(
                &[text("posix"), text("system"), b"\x93".to_vec()].concat(),
                b"\x85R",
            ),
        ),
        ("new object", wrapped(b"csubprocess\nPopen\n", b"\x85\x81")),
        (
            "new object by keywords",
            wrapped(b"csubprocess\nPopen\n)}(X\x04\0\0\0args", b"u\x92"),
        ),
        (
            "state",
            wrapped(b"cbuiltins\nobject\n)\x81}(X\x0c\0\0\0__setstate__", b"ub"),
        ),
        ("state of eval", wrapped(b"cbuiltins\neval\n", b"\x85R}b")),
        (
            "call of a result",
            wrapped(
                b"c__builtin__\ngetattr\ncos\npath\nX\x06\0\0\0system\x86R",
                b"\x85R",
            ),
        ),
        (
            "items",
            wrapped(b"cos\n_Environ\n)\x81X\x04\0\0\0PATH", b"s"),
        ),
        ("appended", wrapped(b"cos\nsystem\n)\x81", b"a")),
        (
            "copyreg",
            wrapped(
                b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR(",
                b"e",
            ),
        ),
        (
            "bytes to storage",
            wrapped(b"ctorch.storage\n_load_from_bytes\n", b"\x85R"),
        ),
        (
            "known name with other arguments",
            wrapped(b"ctorch._utils\n_rebuild_tensor_v2\n", b"\x85R"),
        ),
        (
            "type of another function",
            wrapped(
                b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n",
                b"\x85}tR",
            ),
        ),
    ]);
    for (name, object) in hostile {
        let file = dict([
            ("extra", object.clone()),
            ("state_dict", named(&network(""))),
        ]);
        let found = find(&file, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.state.len(), 122, "{name}");
        assert!(!marker.exists(), "{name} ran its command");
        // In place of a tensor it is refused, and by its name where it has one.
        let mut tensors = network("");
        tensors[0].1 = object;
        let found = find(&named(&tensors), None);
        let is_complete = found.is_ok_and(|found| found.state.contains_key("conv1.weight"));
        assert!(!is_complete && !marker.exists(), "{name}");
    }
}

#[test]
fn a_search_through_dictionaries_within_dictionaries_ends() {
    // Each holds the one before it a thousand times, and the last one also itself.
    let mut program = [dict([("w", tensor(&[1]))]), b"q\0".to_vec()].concat();
    for level in 1..=6u8 {
        program.push(b'}');
        program.extend([b'q', level, b'(']);
        for index in 0..1_000 {
            program.extend(text(&format!("{index}")));
            program.extend([b'h', level - 1]);
        }
        program.extend(text("itself"));
        program.extend([b'h', level, b'u']);
    }
    let started = std::time::Instant::now();
    for key in [None, Some("itself.itself.1.1"), Some("1.1.1.1.1")] {
        // The smaller dictionaries remain on the stack below.
        drop(find(&program, key));
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn long_names_that_are_used_often_are_not_copied() {
    let long = "x".repeat(1_000_000);
    // One dictionary with the same long key 10,000 times, and as many names of unknown classes.
    let mut program = [text(&long), b"q\0".to_vec(), b"}(".to_vec()].concat();
    program.extend([b"h\0".to_vec(), tensor(&[1]), b"q\x01".to_vec()].concat());
    program.extend(b"h\0h\x01".repeat(10_000));
    program.extend(b"h\0h\0h\0\x93)R".repeat(10_000));
    program.extend(b"u");
    let message = refusal(&program, None);
    assert!(message.len() < 2_000, "{} bytes", message.len());
}
