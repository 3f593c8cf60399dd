//! Age and UTKFace's group labels in the name of a file.

/// Shortest run of digits that counts as the time stamp at the end of a name of UTKFace.
const STAMP_DIGITS: usize = 8;

/// Returns the age at the start of a name, in years: digits, optionally with a point and one or two
/// decimals, then one of `_`, `-`, `.` or a blank.
///
/// More than two digits after the point are a running number and not decimals: `34.0017.jpg` is 34
/// years.
pub(super) fn age(name: &str) -> Option<f32> {
    let whole = leading_digits(name);
    let decimals = name[whole..].strip_prefix('.').map_or(0, leading_digits);
    if whole == 0 {
        return None;
    }
    let length_with_decimals = whole + 1 + decimals;
    let has_decimals =
        (1..=2).contains(&decimals) && separator_follows(&name[length_with_decimals..]);
    let length = if has_decimals {
        length_with_decimals
    } else {
        whole
    };
    if !separator_follows(&name[length..]) {
        return None;
    }
    name[..length].parse().ok()
}

/// Returns the labels `gender` (0 or 1) and `race` (0 to 4) of a name of UTKFace,
/// `age_gender_race_stamp`, as far as they are present.
///
/// A field counts only if a later one starts with a time stamp, so `34_1.jpg` and `34_1_2.jpg`,
/// which may just be numbered, have no labels.
pub(super) fn utkface_labels(name: &str) -> Vec<(&'static str, &str)> {
    let fields: Vec<&str> = name.split('_').collect();
    let Some((stamp, before)) = fields.split_last() else {
        return Vec::new();
    };
    if leading_digits(stamp) < STAMP_DIGITS {
        return Vec::new();
    }
    let mut labels = Vec::new();
    if let Some(gender) = before.get(1)
        && matches!(*gender, "0" | "1")
    {
        labels.push(("gender", *gender));
    }
    if let Some(race) = before.get(2)
        && matches!(*race, "0" | "1" | "2" | "3" | "4")
    {
        labels.push(("race", *race));
    }
    labels
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn separator_follows(rest: &str) -> bool {
    rest.starts_with(['_', '-', '.', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_read_from_names_as_they_really_occur() {
        let cases = [
            ("34_1_0_20170103230340961.jpg.chip.jpg", Some(34.0)),
            ("39_1_20170116174525125.jpg.chip.jpg", Some(39.0)),
            ("24_0_1_20170116220224657 .jpg.chip.jpg", Some(24.0)),
            ("55_0_0_20170116232725357jpg.chip.jpg", Some(55.0)),
            ("100_0_0_20170112213500903.jpg", Some(100.0)),
            ("0_0_0_20170110.png", Some(0.0)),
            ("34.5_anna.png", Some(34.5)),
            ("34.25-anna.png", Some(34.25)),
            ("34.5.jpg", Some(34.5)),
            ("34.jpg", Some(34.0)),
            ("34.0017.jpg", Some(34.0)),
            ("34 anna.jpg", Some(34.0)),
            ("34-anna.jpg", Some(34.0)),
            ("007_bond.jpg", Some(7.0)),
            ("20170103_party.jpg", Some(20_170_103.0)),
            ("34years.jpg", None),
            ("34,5_anna.jpg", None),
            ("anna_34.jpg", None),
            ("-3_anna.jpg", None),
            ("_34.jpg", None),
            ("३४_anna.jpg", None),
            ("34", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(age(name), expected, "{name}");
        }
    }

    #[test]
    fn labels_are_read_only_where_a_time_stamp_follows() {
        let cases: [(&str, &[(&str, &str)]); 8] = [
            (
                "34_1_0_20170103230340961.jpg.chip.jpg",
                &[("gender", "1"), ("race", "0")],
            ),
            ("39_1_20170116174525125.jpg.chip.jpg", &[("gender", "1")]),
            (
                "24_0_1_20170116220224657 .jpg.chip.jpg",
                &[("gender", "0"), ("race", "1")],
            ),
            (
                "55_0_0_20170116232725357jpg.chip.jpg",
                &[("gender", "0"), ("race", "0")],
            ),
            ("34_3_9_20170103230340961.jpg", &[]),
            ("34_1.jpg", &[]),
            ("34_1_2.jpg", &[]),
            ("34.jpg", &[]),
        ];
        for (name, expected) in cases {
            assert_eq!(utkface_labels(name), expected, "{name}");
        }
    }
}
