//! The form of a tool: what its input schema asks for, and what somebody has put into it.

use serde_json::{Map, Value};

use super::form::Form;
use crate::wire::schema::{Wanted, spelled};

/// Fields that a form shows; who wants more writes JSON.
const MOST: usize = 100;

/// Values of a list that can be chosen from.
const MOST_CHOICES: usize = 500;

/// What the names of fields begin with, so that no argument is taken for a field of the page.
const PREFIX: &str = "arg.";

/// The fields of a tool.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) fields: Vec<Field>,
    /// How many more there are.
    pub(super) left_out: usize,
}

/// One argument.
#[derive(Debug)]
pub(super) struct Field {
    /// The argument's name.
    pub(super) name: String,
    pub(super) description: String,
    pub(super) required: bool,
    pub(super) input: Input,
    /// What is wanted, in a word or a few, and what counts where it is left out.
    pub(super) hint: String,
    /// What stands in it.
    pub(super) value: String,
    /// What is wrong with that.
    pub(super) mistake: Option<String>,
}

/// How a value is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// One line of text.
    Line,
    /// A number.
    Number,
    /// One of these.
    Choice(Vec<String>),
    /// Many lines of text.
    Text,
    /// Many lines of JSON.
    Json,
}

impl Field {
    /// The name of the field in the form.
    pub(super) fn form_name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

impl Fields {
    /// The empty form of a tool with this input schema.
    pub(super) fn of(schema: &Value) -> Self {
        Self::filled(schema, &Form::default())
    }

    /// The form as it was sent.
    pub(super) fn filled(schema: &Value, form: &Form) -> Self {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let required = |name: &str| {
            let required = schema["required"].as_array();
            required.is_some_and(|required| required.iter().any(|wanted| wanted == name))
        };
        let fields = properties.iter().take(MOST).map(|(name, property)| {
            let wanted = Wanted::of(property, schema);
            let mut hint = wanted.describe();
            if let Some(default) = property.get("default") {
                hint.push_str(&format!(", default {default}"));
            }
            let value = form.get(&format!("{PREFIX}{name}")).unwrap_or_default().to_owned();
            Field {
                name: name.clone(),
                description: property["description"].as_str().unwrap_or_default().to_owned(),
                required: required(name),
                input: input(&wanted),
                hint,
                value,
                mistake: None,
            }
        });
        Self { fields: fields.collect(), left_out: properties.len().saturating_sub(MOST) }
    }

    /// What was entered, as the arguments of a call. What is empty is left out, unless it must be there and may be empty.
    ///
    /// # Errors
    ///
    /// Something is wrong; the fields say what.
    pub(super) fn arguments(&mut self, schema: &Value) -> Result<Map<String, Value>, Mistakes> {
        let mut arguments = Map::new();
        let mut wrong = 0;
        for field in &mut self.fields {
            let wanted = Wanted::of(&schema["properties"][&field.name], schema);
            // Browsers send line feeds as CR LF (WHATWG HTML, "multipart form data" and its sibling).
            let text = field.value.replace("\r\n", "\n");
            let read = match (text.is_empty(), field.required) {
                (true, false) => continue,
                (true, true) if !wanted.takes("string") => Err("a value is needed".to_owned()),
                _ => wanted.read(&text),
            };
            match read {
                Ok(value) => {
                    arguments.insert(field.name.clone(), value);
                }
                Err(mistake) => {
                    wrong += 1;
                    field.mistake = Some(mistake);
                }
            }
        }
        if wrong == 0 { Ok(arguments) } else { Err(Mistakes(wrong)) }
    }
}

/// Some fields are wrong: so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mistakes(pub(super) usize);

fn input(wanted: &Wanted) -> Input {
    let values = wanted.values();
    let structured = ["object", "array"].into_iter().any(|kind| wanted.takes(kind));
    let text = wanted.takes("string");
    let number = wanted.takes("integer") || wanted.takes("number");
    if !values.is_empty() && values.len() <= MOST_CHOICES && !structured && !text && !number {
        return Input::Choice(values.iter().map(spelled).collect());
    }
    match (structured, text, number, wanted.takes("boolean")) {
        (true, ..) => Input::Json,
        (_, true, ..) => Input::Text,
        (_, _, true, _) => Input::Number,
        (.., true) if values.is_empty() => Input::Choice(vec!["true".to_owned(), "false".to_owned()]),
        (.., true) => Input::Line,
        _ if values.is_empty() => Input::Json,
        _ => Input::Line,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::admin::page::form::address;

    #[rstest]
    #[case(json!({"type": "string"}), Input::Text)]
    #[case(json!({"type": ["string", "null"]}), Input::Text)]
    #[case(json!({"type": "integer"}), Input::Number)]
    #[case(json!({"type": "boolean"}), Input::Choice(vec!["true".into(), "false".into()]))]
    #[case(json!({"type": "string", "enum": ["a", "b"]}), Input::Choice(vec!["a".into(), "b".into()]))]
    #[case(json!({"anyOf": [{"enum": ["a"]}, {"type": "string"}]}), Input::Text)]
    #[case(json!({"type": "array"}), Input::Json)]
    #[case(json!({}), Input::Json)]
    fn inputs_follow_the_schema(#[case] property: Value, #[case] expected: Input) {
        let schema = json!({"properties": {"a": property}});
        assert_eq!(Fields::of(&schema).fields[0].input, expected);
    }

    fn sent(schema: &Value, values: &[(&str, &str)]) -> Fields {
        let names: Vec<String> = values.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        let query: Vec<(&str, &str)> =
            names.iter().zip(values).map(|(name, (_, value))| (name.as_str(), *value)).collect();
        let address = address("", &query);
        Fields::filled(schema, &Form::of_query(address.strip_prefix('?')))
    }

    #[test]
    fn what_is_entered_becomes_arguments() {
        let schema = json!({
            "properties": {
                "text": {"type": "string"}, "empty": {"type": "string"}, "count": {"type": "integer", "default": 3},
                "flag": {"type": "boolean"}, "list": {"type": "array"}, "left": {"type": "integer"},
                "a&b=\"c": {"type": "string"},
            },
            "required": ["text", "empty"],
        });
        let values =
            [("text", "007\r\nx"), ("count", "7"), ("flag", "true"), ("list", "[1, {}]"), ("a&b=\"c", "<é>")];
        let mut fields = sent(&schema, &values);
        assert_eq!(fields.fields[2].hint, "integer, default 3");
        let arguments = fields.arguments(&schema).unwrap();
        let expected = json!({
            "text": "007\nx", "empty": "", "count": 7, "flag": true, "list": [1, {}], "a&b=\"c": "<é>",
        });
        assert_eq!(Value::Object(arguments), expected);
    }

    #[test]
    fn what_is_wrong_is_said_where_it_is() {
        let schema = json!({
            "properties": {"count": {"type": "integer"}, "list": {"type": "array"}, "ok": {"type": "string"}},
            "required": ["count"],
        });
        let mut fields = sent(&schema, &[("list", "[1"), ("ok", "x")]);
        assert_eq!(fields.arguments(&schema), Err(Mistakes(2)));
        let mistakes: Vec<_> = fields.fields.iter().map(|field| field.mistake.as_deref()).collect();
        assert_eq!(mistakes[0], Some("a value is needed"));
        assert!(mistakes[1].is_some_and(|mistake| mistake.starts_with("not JSON")), "{mistakes:?}");
        assert_eq!(mistakes[2], None);
        assert_eq!(fields.fields[1].value, "[1", "what was entered stays");
    }

    #[test]
    fn a_schema_can_be_anything() {
        for schema in [json!(null), json!(7), json!({"properties": []}), json!({"properties": {"a": 7}})] {
            let mut fields = Fields::of(&schema);
            assert!(fields.arguments(&schema).is_ok());
        }
        let many: Map<String, Value> = (0..MOST + 5).map(|n| (format!("p{n}"), json!({}))).collect();
        let fields = Fields::of(&json!({"properties": many}));
        assert_eq!((fields.fields.len(), fields.left_out), (MOST, 5));
    }
}
