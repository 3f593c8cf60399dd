use std::collections::BTreeMap;

use fs_err as fs;
use serde_json::Value as Json;

use super::fixture;
use crate::model::weights::{
    DType, Error, Mismatch, StateDict, TensorData, check_shapes, read, read::load, text::hex,
    without_head,
};

/// Python's reading of each file: file, tensor, description.
fn expected() -> BTreeMap<String, BTreeMap<String, Json>> {
    serde_json::from_slice(&fs::read(fixture("expected.json")).unwrap()).unwrap()
}

fn shape(json: &Json) -> Vec<usize> {
    let lengths = json["shape"].as_array().unwrap();
    lengths
        .iter()
        .map(|length| length.as_u64().unwrap() as usize)
        .collect()
}

fn zeros(shape: &[usize]) -> TensorData {
    TensorData {
        dtype: DType::U8,
        shape: shape.to_vec(),
        data: vec![0; shape.iter().product()],
    }
}

#[test]
fn every_file_reads_as_python_wrote_it() {
    let expected = expected();
    assert_eq!(expected.len(), 11);
    for (file, tensors) in expected {
        let found = read(&fixture(&file)).unwrap();
        assert_eq!(found.len(), tensors.len(), "{file}");
        for (name, wanted) in tensors {
            let tensor = &found[&name];
            assert_eq!(
                tensor.dtype.to_string(),
                wanted["dtype"].as_str().unwrap(),
                "{file} {name}"
            );
            assert_eq!(tensor.shape, shape(&wanted), "{file} {name}");
            assert_eq!(
                hex(&tensor.data),
                wanted["bytes"].as_str().unwrap(),
                "{file} {name}"
            );
            let numbers = wanted["numbers"].as_array().unwrap();
            let numbers: Vec<f32> = numbers
                .iter()
                .map(|number| number.as_f64().unwrap() as f32)
                .collect();
            assert_eq!(tensor.to_f32(), numbers, "{file} {name}");
        }
    }
}

#[test]
fn views_of_one_storage_become_contiguous() {
    // By hand: the storage counts from 0 to 23 in a block of 2 by 3 by 4.
    let views = read(&fixture("views.pth")).unwrap();
    assert_eq!(
        views["inner_slice"].to_f32(),
        [6.0, 7.0, 10.0, 11.0, 18.0, 19.0, 22.0, 23.0]
    );
    assert_eq!(views["repeated"].to_f32(), [3.0, 3.0, 3.0, 4.0, 4.0, 4.0]);
    assert_eq!(views["transposed"].to_f32()[..4], [0.0, 4.0, 8.0, 12.0]);
    assert_eq!(views["one_number"].shape, [0_usize; 0]);
}

#[test]
fn the_content_decides_and_not_the_extension() {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("every_dtype.safetensors", "weights.pth"),
        ("every_dtype.pth", "model.safetensors"),
    ] {
        let path = dir.path().join(to);
        fs::copy(fixture(from), &path).unwrap();
        assert_eq!(read(&path).unwrap(), read(&fixture(from)).unwrap());
    }
}

#[test]
fn files_of_other_formats_are_refused_with_a_remedy() {
    let old = read(&fixture("old_format.pth")).unwrap_err().to_string();
    assert!(
        old.contains("old_format.pth") && old.contains("torch.save(torch.load("),
        "{old}"
    );

    let module = read(&fixture("whole_module.pth")).unwrap_err().to_string();
    assert!(
        module.contains("torch.nn.modules.linear.Linear") && module.contains("state_dict()"),
        "{module}"
    );

    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "not weights").unwrap();
    assert!(
        read(&text)
            .unwrap_err()
            .to_string()
            .contains("neither a torch .pth archive nor")
    );
    fs::write(&text, "").unwrap();
    assert!(read(&text).is_err());
    assert!(matches!(read(dir.path()), Err(Error::NotAFile { .. })));
    assert!(
        read(&dir.path().join("absent.pth"))
            .unwrap_err()
            .to_string()
            .contains("absent.pth")
    );
}

#[test]
fn a_file_too_large_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.pth");
    // A hole: it takes no room on the disk.
    fs::File::create(&path)
        .unwrap()
        .set_len((1 << 30) + 1)
        .unwrap();
    assert!(matches!(
        read(&path),
        Err(Error::TooLarge {
            size: 1_073_741_825,
            ..
        })
    ));
}

#[test]
fn a_digest_in_a_name_of_torch_hub_must_match_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let (_, sha256) = load(&fixture("state_dict.pth")).unwrap();
    for published in [
        "resnet18-f37072fd.pth",
        "resnet18-5c106cde.pth",
        "semi_supervised_resnet18-d92f0530.pth",
        "semi_weakly_supervised_resnet18-118f1556.pth",
    ] {
        let wrong = published;
        let path = dir.path().join(wrong);
        fs::copy(fixture("state_dict.pth"), &path).unwrap();
        let message = read(&path).unwrap_err().to_string();
        let promised = &wrong[wrong.len() - 12..wrong.len() - 4];
        assert!(
            message.contains(&sha256) && message.contains(promised),
            "{message}"
        );
    }
}

#[test]
fn a_number_in_any_other_name_is_not_a_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (_, sha256) = load(&fixture("state_dict.pth")).unwrap();
    for name in [
        "age-20240131.pth",
        "run-7-2024013118.pth",
        "epoch-00000012.pth",
        "mymodel-deadbeef.pth",
        "resnet18-00000000.pth",
        "my-resnet18-f37072fd.pth",
        "resnet18-f37072fd.safetensors",
    ] {
        let path = dir.path().join(name);
        fs::copy(fixture("state_dict.pth"), &path).unwrap();
        assert_eq!(load(&path).unwrap().1, sha256, "{name}");
    }
}

#[test]
fn a_torchscript_archive_is_refused_by_name() {
    let message = read(&fixture("torchscript.pt")).unwrap_err().to_string();
    assert!(
        message.contains("TorchScript") && message.contains("state_dict()"),
        "{message}"
    );
}

#[test]
fn every_difference_is_listed_and_long_lists_are_cut() {
    let expected: Vec<(String, Vec<usize>)> = vec![
        ("a".to_owned(), vec![1]),
        ("b".to_owned(), vec![2, 3]),
        ("bn.num_batches_tracked".to_owned(), vec![]),
        ("fc.bias".to_owned(), vec![4]),
    ];
    let mut found = StateDict::from([("b".to_owned(), zeros(&[3, 2]))]);
    for index in 0..12 {
        found.insert(format!("more{index:02}"), zeros(&[1]));
    }
    let message = check_shapes(&found, &expected, &Mismatch::default())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("3 missing (a, bn.num_batches_tracked, fc.bias)"),
        "{message}"
    );
    assert!(
        message.contains("12 surplus (\"more00\"") && message.contains("\"more09\" and 2 more)"),
        "{message}"
    );
    assert!(
        message.contains("1 misshapen (b is [3, 2], expected [2, 3])"),
        "{message}"
    );

    let tolerant = Mismatch {
        counters: true,
        missing_head: true,
    };
    let found = StateDict::from([
        ("a".to_owned(), zeros(&[1])),
        ("b".to_owned(), zeros(&[2, 3])),
    ]);
    check_shapes(&found, &expected, &tolerant).unwrap();
    assert!(check_shapes(&found, &expected, &Mismatch::default()).is_err());
}

#[test]
fn only_a_head_of_one_output_is_kept() {
    let with_head = |outputs: usize| {
        StateDict::from([
            ("fc.bias".to_owned(), zeros(&[outputs])),
            ("fc.weight".to_owned(), zeros(&[outputs, 512])),
            ("fcx".to_owned(), zeros(&[1])),
        ])
    };
    assert_eq!(without_head(with_head(1)).len(), 3);
    assert_eq!(
        without_head(with_head(1000))
            .into_keys()
            .collect::<Vec<_>>(),
        ["fcx"]
    );
}
