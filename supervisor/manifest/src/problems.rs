//! What is wrong with a file, as it is found: each problem with its field and that field's place. The checks of each kind of file are
//! methods beside it.

use std::fmt::Display;

use aion_types::ErrorCode;

use crate::error::{Error, Problem};
use crate::raw::Span;
use crate::yaml::Node;

/// Where a file's problems are collected.
pub(crate) struct Problems<'a> {
    tree: &'a Node,
    file: &'a str,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(crate) const fn of(tree: &'a Node, file: &'a str) -> Self {
        Self { tree, file, found: Vec::new() }
    }

    /// Something is wrong, and what to do about it; that may be empty.
    pub(crate) fn wrong(&mut self, field: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push(Problem {
            file: self.file.to_owned(),
            place: Some(self.tree.place_of(field)),
            field: field.to_owned(),
            message: message.into(),
            fix: fix.into(),
        });
    }

    pub(crate) fn range<T: Copy + Display + PartialOrd>(
        &mut self,
        field: &str,
        value: T,
        min: T,
        max: T,
    ) -> T {
        if !(min..=max).contains(&value) {
            self.wrong(field, "it is out of range", format!("use {min} to {max}"));
        }
        value
    }

    /// As [`Problems::range`], of milliseconds.
    pub(crate) fn span(&mut self, field: &str, value: Span, min: u64, max: u64) -> Span {
        if !(min..=max).contains(&value.0) {
            self.wrong(field, "it is out of range", format!("use {} to {}", Span(min), Span(max)));
        }
        value
    }

    pub(crate) const fn tree(&self) -> &'a Node {
        self.tree
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What was read, when nothing is wrong with it.
    pub(crate) fn or<T>(self, code: ErrorCode, read: T) -> Result<T, Error> {
        if self.found.is_empty() { Ok(read) } else { Err(Error::new(code, self.found)) }
    }
}
