use proptest::prelude::*;
use serde_json::json;

use super::*;

const ROW: Shape = Shape::Struct(&[
    ("Name", Shape::Text),
    ("Port", Shape::Int),
    ("Weight", Shape::Float),
    ("Enabled", Shape::Bool),
    ("Tags", Shape::List(&Shape::Text)),
    ("Meta", Shape::Map(&Shape::Text)),
    ("Checks", Shape::List(&Shape::Struct(&[("Status", Shape::Text), ("Tags", Shape::List(&Shape::Text))]))),
    ("Service", Shape::Struct(&[("Meta", Shape::Map(&Shape::Text)), ("not", Shape::Text)])),
]);

fn row() -> Value {
    json!({
        "Name": "web", "Port": 80, "Weight": 1.5, "Enabled": true, "Tags": ["v1", "it's"],
        "Meta": {"env": "prod", "a key": "x"},
        "Checks": [{"Status": "passing"}, {"Status": "critical", "Tags": ["t"]}],
        "Service": {"Meta": {}, "not": "odd"},
    })
}

fn holds(expression: &str) -> bool {
    match Filter::compile(expression, &ROW) {
        Ok(filter) => filter.keeps(&row()),
        Err(error) => panic!("{expression}: {error}"),
    }
}

fn fault(expression: &str) -> String {
    Filter::compile(expression, &ROW).unwrap_err().to_string()
}

#[test]
fn what_holds() {
    for expression in [
        "Name == web",
        "Name==\"web\"",
        "Name == `web`",
        "  Name != db  ",
        "(Name == web)",
        "((Name == web) and (Port == 80))",
        "not Name == db",
        "not not Name == web",
        "Name == db or Name == web",
        "Name == web and Port == 80 or Name == nothing",
        "Name == nothing or Name == web and Port == 80",
        "not (Name == web and Port == 81)",
        "Port == \"0x50\"",
        "Port != 81",
        "Weight == 1.5",
        "Enabled == true",
        "Enabled == t",
        "Tags contains v1",
        "v1 in Tags",
        "\"it's\" in Tags",
        "Tags not contains v2",
        "v2 not in Tags",
        "Tags is not empty",
        "Meta is not empty",
        "env in Meta",
        "\"a key\" in Meta",
        "Meta contains env",
        "Meta.env == prod",
        "Meta[\"a key\"] == x",
        "Meta[ `a key` ] == x",
        "Meta[\"\\x61 key\"] == x",
        "Meta.other != prod",
        "Meta.env matches \"^pr\"",
        "Meta.env not matches dev",
        "Meta.other not matches dev",
        "Name contains e",
        "we in Name",
        "Checks.Status == critical",
        "Checks.Status != critical",
        "Checks.Tags contains t",
        "Checks is not empty",
        "Service.Meta is empty",
        "Service.not == odd",
        "Name matches `w.b`",
    ] {
        assert!(holds(expression), "{expression}");
    }
}

#[test]
fn what_does_not_hold() {
    for expression in [
        "Name == db",
        "not Name == web",
        "Name == db or Name == other",
        "Port == 81",
        "Port == -80",
        "Tags is empty",
        "Meta.other == prod",
        "Meta.other matches prod",
        "Checks.Status == warning",
        "Name matches \"^b\"",
        "Name == WEB",
        "other in Meta",
        "Service.Meta is not empty",
    ] {
        assert!(!holds(expression), "{expression}");
    }
}

#[test]
fn what_was_left_out_is_nothing() {
    let keeps = |expression: &str| Filter::compile(expression, &ROW).unwrap().keeps(&json!({}));
    for expression in
        ["Name == \"\"", "Port == 0", "Enabled == false", "Tags is empty", "Meta is empty", "v1 not in Tags"]
    {
        assert!(keeps(expression), "{expression}");
    }
    assert!(!keeps("Checks.Status == passing") && !keeps("Meta.env == \"\""));
}

#[test]
fn what_cannot_be_asked_is_said() {
    for (expression, expected) in [
        ("Nme == web", "Selector \"Nme\" is not valid"),
        ("Service.Nme == web", "Selector \"Service.Nme\" is not valid"),
        ("Name.first == web", "Selector \"Name.first\" is not valid"),
        ("Name is empty", "Invalid match operator \"Is Empty\" for selector \"Name\""),
        ("Service == x", "Invalid match operator \"Equal\" for selector \"Service\""),
        ("x not in Port", "Invalid match operator \"Not In\" for selector \"Port\""),
        ("Checks contains x", "Invalid match operator \"In\" for selector \"Checks\""),
        ("Tags matches x", "Invalid match operator \"Matches\" for selector \"Tags\""),
        ("Port == web", "Failed to coerce value \"web\" for selector \"Port\": it is no integer"),
        ("Enabled == yes", "Failed to coerce value \"yes\" for selector \"Enabled\": it is no true or false"),
        ("Name", "1:5 (4): no match found, expected: an operator"),
        ("Name = web", "1:5 (4): no match found, expected: an operator"),
        ("Name == web and", "1:13 (12): no match found, expected: \"and\", \"or\" or the end"),
        ("Name == ", "1:9 (8): no match found, expected: a value"),
        ("(Name == web", "1:13 (12): Unmatched parentheses"),
        ("Name == \"web", "1:9 (8): Unterminated string literal"),
        ("Port == 8.0.0.1", "1:9 (8): Invalid number literal"),
        ("Port == 0x50", "1:9 (8): Invalid number literal"),
        ("Port == 080", "1:9 (8): Invalid number literal"),
        ("Meta[env] == x", "1:6 (5): Invalid index"),
        ("Meta[\"env\" == x", "1:12 (11): Unclosed index expression"),
        ("x in 5", "1:6 (5): Invalid selector"),
        ("", "1:1 (0): no match found, expected: a value"),
    ] {
        assert_eq!(fault(expression), expected, "{expression}");
    }
    assert!(fault("Name matches \"(\"").starts_with("Failed to compile regular expression \"(\": "));
}

#[test]
fn everything_has_a_limit() {
    let deep = format!("{}Name == web{}", "(".repeat(10_000), ")".repeat(10_000));
    assert_eq!(fault(&deep), "the expression is longer than 16384 bytes");
    let deep = format!("{}Name == web{}", "(".repeat(65), ")".repeat(65));
    assert_eq!(fault(&deep), "the expression is nested deeper than 64 levels");
    assert!(holds(&format!("{}Name == web{}", "(".repeat(64), ")".repeat(64))));
    let many = vec!["Name == web"; 257].join(" or ");
    assert_eq!(fault(&many), "the expression makes more than 256 comparisons");
    assert!(holds(&format!("{}Name == web", "not ".repeat(4000))));
    let large = fault("Name matches \"(a{1000}){1000}\"");
    assert!(large.ends_with("it is too large"), "{large}");
}

/// Expressions that are well formed, beside what they come to.
fn expressions() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("Name == web".to_owned(), true)),
        Just(("Port != 80".to_owned(), false)),
        Just(("v1 in Tags".to_owned(), true)),
        Just(("Meta[\"env\"] matches `^dev`".to_owned(), false)),
        Just(("Checks.Status == `passing`".to_owned(), true)),
        Just(("Service.Meta is not empty".to_owned(), false)),
    ];
    leaf.prop_recursive(6, 40, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(text, value)| (format!("not ({text})"), !value)),
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| (format!("({a}) and ({b})"), x && y)),
            (inner.clone(), inner).prop_map(|((a, x), (b, y))| (format!("( {a} )\tor ({b} )"), x || y)),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Filter::compile(&text, &ROW).map(|filter| filter.keeps(&row()));
    }

    #[test]
    fn no_likely_text_panics(words in prop::collection::vec(
        prop::sample::select(vec![
            "Name", "Tags", "Meta", ".", "[", "]", "\"", "`", "==", "!=", "in", "not", "is", "empty", "contains",
            "matches", "and", "or", "(", ")", " ", " ", " ", "web", "-1", "0.5", "\\x4", "ü",
        ]), 0..24))
    {
        let _ = Filter::compile(&words.concat(), &ROW).map(|filter| filter.keeps(&row()));
    }

    #[test]
    fn no_row_panics(text in "\\PC*", number: i64) {
        let filter = Filter::compile("Tags contains x or Port == 1 or Meta.a == b or Checks.Status == c", &ROW);
        let filter = filter.unwrap();
        for odd in [json!(null), json!(text), json!([number]), json!({"Tags": text, "Meta": number, "Checks": {}})] {
            filter.keeps(&odd);
        }
    }

    #[test]
    fn and_or_and_not_are_what_they_say((text, expected) in expressions()) {
        prop_assert_eq!(holds(&text), expected, "{}", text);
    }
}
