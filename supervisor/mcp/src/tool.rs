//! A tool and what calling it gave: shared by both sides.
//!
//! Reading is strict, as it is done to what an untrusted server sent. Neighbours: the client reads these, the server
//! writes them.

use serde_json::{Map, Value, json};

use crate::Revision;

/// The longest name of a tool, in bytes.
const MAX_NAME: usize = 256;

/// A tool as its server describes it. From an untrusted server every text of it is untrusted too.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolInfo {
    /// Names it in calls; 1 to 256 bytes without control characters.
    pub name: String,
    /// For the model; may be empty.
    pub description: String,
    /// JSON Schema of the arguments; an object.
    pub input_schema: Value,
    /// JSON Schema of the structured result; an object.
    pub output_schema: Option<Value>,
}

impl ToolInfo {
    /// Says what is wrong with it when it is not valid.
    pub(crate) fn read(value: Value) -> Result<Self, &'static str> {
        let Value::Object(mut tool) = value else { return Err("a tool is not an object") };
        let Some(Value::String(name)) = tool.remove("name") else { return Err("a tool has no name") };
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err("a tool's name is not valid");
        }
        let description = match tool.remove("description") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => return Err("a tool's description is not a string"),
        };
        let Some(input_schema @ Value::Object(_)) = tool.remove("inputSchema") else {
            return Err("a tool has no input schema");
        };
        let output_schema = match tool.remove("outputSchema") {
            None | Some(Value::Null) => None,
            Some(schema @ Value::Object(_)) => Some(schema),
            Some(_) => return Err("a tool's output schema is not an object"),
        };
        Ok(Self { name, description, input_schema, output_schema })
    }

    pub(crate) fn into_value(self, revision: Revision) -> Value {
        let mut tool = Map::new();
        tool.insert("name".to_owned(), Value::String(self.name));
        if !self.description.is_empty() {
            tool.insert("description".to_owned(), Value::String(self.description));
        }
        tool.insert("inputSchema".to_owned(), self.input_schema);
        if let Some(schema) = self.output_schema.filter(|_| revision.has_structured_results()) {
            tool.insert("outputSchema".to_owned(), schema);
        }
        Value::Object(tool)
    }
}

/// What calling a tool gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolResult {
    /// Blocks of content; each is an object with a string `type`.
    pub content: Vec<Value>,
    /// The result as the tool's output schema has it; an object.
    pub structured: Option<Value>,
    /// Whether the tool says that it failed; the content then says why.
    pub is_error: bool,
    /// What is not for the model: `_meta`.
    pub meta: Map<String, Value>,
}

impl ToolResult {
    /// One block of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![json!({ "type": "text", "text": text.into() })], ..Self::default() }
    }

    /// One block of text that says why the tool failed.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }

    /// An object, and the same as text for clients that know no structured results.
    #[must_use]
    pub fn structured(object: Map<String, Value>) -> Self {
        let object = Value::Object(object);
        Self { structured: Some(object.clone()), ..Self::text(object.to_string()) }
    }

    /// Says what is wrong with it when it is not valid.
    pub(crate) fn read(value: Value) -> Result<Self, &'static str> {
        let Value::Object(mut result) = value else { return Err("the result is not an object") };
        let structured = match result.remove("structuredContent") {
            None | Some(Value::Null) => None,
            Some(object @ Value::Object(_)) => Some(object),
            Some(_) => return Err("the structured content is not an object"),
        };
        let Some(Value::Array(content)) = result.remove("content") else {
            return Err("the result has no content");
        };
        if content.iter().any(|block| !block.get("type").is_some_and(Value::is_string)) {
            return Err("a block of content has no type");
        }
        let is_error = match result.remove("isError") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(is_error)) => is_error,
            Some(_) => return Err("isError is not a boolean"),
        };
        let meta = match result.remove("_meta") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(meta)) => meta,
            Some(_) => return Err("_meta is not an object"),
        };
        Ok(Self { content, structured, is_error, meta })
    }

    pub(crate) fn into_value(self, revision: Revision) -> Value {
        let mut result = Map::new();
        result.insert("content".to_owned(), Value::Array(self.content));
        if let Some(structured) = self.structured.filter(|_| revision.has_structured_results()) {
            result.insert("structuredContent".to_owned(), structured);
        }
        result.insert("isError".to_owned(), Value::Bool(self.is_error));
        if !self.meta.is_empty() {
            result.insert("_meta".to_owned(), Value::Object(self.meta));
        }
        Value::Object(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_survives_the_wire() {
        let tool = ToolInfo {
            name: "read".to_owned(),
            description: "Reads.".to_owned(),
            input_schema: json!({"type": "object"}),
            output_schema: Some(json!({"type": "object"})),
        };
        assert_eq!(ToolInfo::read(tool.clone().into_value(Revision::LATEST)), Ok(tool.clone()));
        // Older clients are not told what they do not know.
        let old = ToolInfo::read(tool.into_value(Revision::V2025_03_26)).unwrap();
        assert_eq!(old.output_schema, None);
    }

    #[test]
    fn tools_that_are_not_valid() {
        for value in [
            json!(1),
            json!({"inputSchema": {}}),
            json!({"name": "", "inputSchema": {}}),
            json!({"name": "a\u{1b}[2J", "inputSchema": {}}),
            json!({"name": "a".repeat(257), "inputSchema": {}}),
            json!({"name": "a"}),
            json!({"name": "a", "inputSchema": true}),
            json!({"name": "a", "inputSchema": {}, "description": 1}),
            json!({"name": "a", "inputSchema": {}, "outputSchema": []}),
        ] {
            assert!(ToolInfo::read(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn results() {
        let result = ToolResult::structured(Map::from_iter([("a".to_owned(), json!(1))]));
        assert_eq!(ToolResult::read(result.clone().into_value(Revision::LATEST)), Ok(result));
        let meta = Map::from_iter([("aion.os/failure".to_owned(), json!("timeout"))]);
        let result = ToolResult { meta, ..ToolResult::error("late") };
        assert_eq!(ToolResult::read(result.clone().into_value(Revision::LATEST)), Ok(result));
        for value in [
            json!([]),
            json!({}),
            json!({"content": "a"}),
            json!({"content": ["a"]}),
            json!({"content": [{"type": 1}]}),
            json!({"content": [], "isError": "no"}),
            json!({"content": [], "structuredContent": [1]}),
            json!({"content": [], "_meta": 1}),
        ] {
            assert!(ToolResult::read(value.clone()).is_err(), "{value}");
        }
    }
}
