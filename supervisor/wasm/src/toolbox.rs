//! The module as a toolbox with one tool.

use aion_mcp::{ToolFailure, ToolInfo, ToolResult, Toolbox};
use serde_json::{Map, Value, json};

use crate::module::Module;
use crate::run::Outcome;

/// `_meta`: why a call failed, `{"code": …}`.
const FAILURE: &str = "aion.os/failure";
/// `_meta`: what a call took.
const USAGE: &str = "aion.os/usage";

/// What the tool says of itself.
#[derive(Debug, Clone)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it does.
    pub text: String,
    /// JSON Schema of its arguments. Whoever calls holds them to it; the module is told them as they are.
    pub input_schema: Value,
}

/// One tool.
#[derive(Debug)]
pub struct Tool {
    module: Module,
    description: Description,
}

impl Tool {
    /// Serves this module under this name.
    #[must_use]
    pub fn new(module: Module, description: Description) -> Self {
        Self { module, description }
    }
}

impl Toolbox for Tool {
    type Caller = ();

    async fn list(&self, _: &()) -> Vec<ToolInfo> {
        vec![ToolInfo {
            name: self.description.name.clone(),
            description: self.description.text.clone(),
            input_schema: self.description.input_schema.clone(),
            output_schema: None,
        }]
    }

    async fn call(
        &self,
        _: &(),
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<ToolResult, ToolFailure> {
        if name != self.description.name {
            return Err(ToolFailure::Unknown);
        }
        Ok(answer(self.module.run(Value::Object(arguments).to_string()).await))
    }
}

fn answer(outcome: Outcome) -> ToolResult {
    let Outcome { result, stderr, usage } = outcome;
    let mut answer = match result {
        Ok(Value::Object(object)) => ToolResult::structured(object),
        Ok(value) => ToolResult::text(value.to_string()),
        Err(failure) => {
            let said = stderr.trim();
            let text = if said.is_empty() { failure.to_string() } else { format!("{failure}: {said}") };
            let mut answer = ToolResult::error(text);
            answer.meta.insert(FAILURE.to_owned(), failure.to_value());
            answer
        }
    };
    let micros = u64::try_from(usage.time.as_micros()).unwrap_or(u64::MAX);
    answer.meta.insert(
        USAGE.to_owned(),
        json!({ "fuel": usage.fuel, "memory_bytes": usage.memory, "time_us": micros }),
    );
    answer
}
