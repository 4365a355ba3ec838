//! Prepares one expression for hcl-rs: `env`, `file` and locals become variables, what is not allowed a fault.

use std::ops::Range;

use hcl::eval::{Context, Error, ErrorKind, Evaluate};
use hcl_edit::expr::{Expression, ForExpr, FuncCall, TraversalOperator};
use hcl_edit::template::{Directive, Interpolation};
use hcl_edit::visit_mut::{self, VisitMut};
use hcl_edit::{Decorated, Ident, Span as _};

use super::{Evaluator, Lookup, MAX_INPUT};
use crate::diagnostic::nearest::suggestion;
use crate::diagnostic::{Diagnostic, Faults, sentence};
use crate::document::Span;

const FUNCTIONS: [&str; 2] = ["env", "file"];

/// One pass over one expression.
pub struct Rewrite<'e, 'i, 'f> {
    evaluator: &'e Evaluator<'i>,
    base: usize,
    /// The whole expression: where to point when a part has no place of its own.
    whole: Span,
    faults: &'f mut Faults,
    context: Context<'static>,
    variables: usize,
    sound: bool,
}

impl<'e, 'i, 'f> Rewrite<'e, 'i, 'f> {
    pub fn new(evaluator: &'e Evaluator<'i>, base: usize, whole: Span, faults: &'f mut Faults) -> Self {
        Self { evaluator, base, whole, faults, context: Context::new(), variables: 0, sound: true }
    }

    /// The value of `expr`; `None` after a fault.
    pub fn value(mut self, expr: &Expression) -> Option<hcl::Value> {
        let mut expr = expr.clone();
        self.visit_expr_mut(&mut expr);
        if !self.sound {
            return None;
        }
        match hcl::Expression::from(expr).evaluate(&self.context) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault("expression", "this expression cannot be worked out", &reason(&error), None);
                None
            }
        }
    }

    fn fault(&mut self, code: &'static str, summary: &str, detail: &str, span: Option<Range<usize>>) {
        self.sound = false;
        let inside = |range: &Range<usize>| self.base + range.end <= self.whole.end as usize;
        let at = match span.filter(inside) {
            Some(range) => self.faults.at(self.base + range.start..self.base + range.end),
            None => self.faults.at(self.whole),
        };
        self.faults.push(Diagnostic::error(code, summary, Some(at)).detail(detail));
    }

    /// A new variable that holds `value`.
    fn variable(&mut self, value: hcl::Value) -> Expression {
        let name = format!("v{}", self.variables);
        self.variables += 1;
        self.context.declare_var(name.as_str(), value);
        Expression::Variable(Decorated::new(Ident::new(name)))
    }

    /// What a call of `env` or `file` gives.
    fn call(&mut self, call: &mut FuncCall) -> Option<hcl::Value> {
        let span = call.span();
        let name = call.name.name.as_str().to_owned();
        if call.name.is_namespaced() || !FUNCTIONS.contains(&name.as_str()) {
            let summary = format!("there is no function {name}(){}", suggestion(&name, FUNCTIONS));
            self.fault(
                "unknown-function",
                &summary,
                "A value may use env(\"NAME\") and file(\"PATH\"), and no other function.",
                span,
            );
            return None;
        }
        let (Some(argument), 1) = (call.args.get(0), call.args.len()) else {
            self.fault("function", &format!("{name}() takes one argument"), "", span);
            return None;
        };
        let mut argument = argument.clone();
        self.visit_expr_mut(&mut argument);
        if !self.sound {
            return None;
        }
        let Ok(hcl::Value::String(wanted)) = hcl::Expression::from(argument).evaluate(&self.context) else {
            self.fault("function", &format!("{name}() takes a string"), "", span);
            return None;
        };
        let declaring = self.faults.file().clone();
        let got = match name.as_str() {
            "env" => self.evaluator.inputs.env(&wanted),
            _ => self.evaluator.inputs.file(&declaring, &wanted),
        };
        match got {
            Ok(text) if text.len() > MAX_INPUT => {
                let detail =
                    format!("It has {} bytes; {name}() gives at most {} KiB.", text.len(), MAX_INPUT / 1024);
                self.fault("too-large", &format!("what {name}() gives is too large"), &detail, span);
                None
            }
            Ok(text) => Some(hcl::Value::String(text)),
            Err(why) => {
                self.fault("input", &format!("{name}() gives nothing here"), &sentence(&why), span);
                None
            }
        }
    }

    /// The value of `local.NAME`, the first two steps of a traversal.
    fn local(&mut self, name: &str, span: Option<Range<usize>>) -> Option<hcl::Value> {
        match self.evaluator.lookup(name) {
            Lookup::Known(value) => Some(value.clone()),
            // Its own fault has been told.
            Lookup::Unsettled => {
                self.sound = false;
                None
            }
            Lookup::Unknown => {
                let near = suggestion(name, self.evaluator.declared.keys().map(String::as_str));
                self.fault(
                    "unknown-local",
                    &format!("there is no local.{name}{near}"),
                    "A local is declared in a `locals { }` block of the same file.",
                    span,
                );
                None
            }
        }
    }
}

impl VisitMut for Rewrite<'_, '_, '_> {
    fn visit_expr_mut(&mut self, node: &mut Expression) {
        match node {
            Expression::FuncCall(call) => {
                if let Some(value) = self.call(call) {
                    *node = self.variable(value);
                }
            }
            Expression::Traversal(traversal) => {
                let span = traversal.span();
                if let Some(splat) = traversal.operators.iter().find(|operator| {
                    matches!(
                        operator.value(),
                        TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_)
                    )
                }) {
                    let span = splat.span();
                    return self.fault(
                        "expression",
                        "a splat cannot be used here",
                        "",
                        span.or(traversal.span()),
                    );
                }
                let is_local =
                    matches!(&traversal.expr, Expression::Variable(name) if name.as_str() == "local");
                let name = match traversal.operators.first().map(hcl_edit::Decorated::value) {
                    Some(TraversalOperator::GetAttr(name)) if is_local => name.as_str().to_owned(),
                    _ => return visit_mut::visit_traversal_mut(self, traversal),
                };
                let Some(value) = self.local(&name, span) else { return };
                let variable = self.variable(value);
                traversal.operators.remove(0);
                if traversal.operators.is_empty() {
                    *node = variable;
                } else {
                    traversal.expr = variable;
                    for operator in &mut traversal.operators {
                        self.visit_traversal_operator_mut(operator.value_mut());
                    }
                }
            }
            Expression::Variable(name) => {
                let span = name.span();
                let (word, near) = (name.as_str(), suggestion(name.as_str(), ["local"]));
                let (summary, detail) = if word == "local" {
                    ("`local` needs a name".to_owned(), "Write local.NAME.".to_owned())
                } else {
                    (
                        format!("{word:?} is not known here{near}"),
                        format!("If a text is meant, quote it: \"{word}\"."),
                    )
                };
                self.fault("unknown-word", &summary, &detail, span);
            }
            other => visit_mut::visit_expr_mut(self, other),
        }
    }

    fn visit_for_expr_mut(&mut self, node: &mut ForExpr) {
        self.fault("expression", "a `for` expression cannot be used here", "", node.span());
    }

    fn visit_directive_mut(&mut self, node: &mut Directive) {
        self.fault("expression", "a `%{ }` directive cannot be used here", "", node.span());
    }

    fn visit_interpolation_mut(&mut self, node: &mut Interpolation) {
        let span = node.span();
        visit_mut::visit_interpolation_mut(self, node);
        if !self.sound {
            return;
        }
        // hcl-rs would write a list out as HCL; nobody means that.
        match hcl::Expression::from(node.expr.clone()).evaluate(&self.context) {
            Ok(hcl::Value::Array(_) | hcl::Value::Object(_) | hcl::Value::Null) => {
                self.fault(
                    "wrong-type",
                    "only a string, a number or a boolean can stand in a template",
                    "",
                    span,
                );
            }
            Ok(value) => node.expr = self.variable(value),
            Err(error) => {
                self.fault("expression", "this expression cannot be worked out", &reason(&error), span);
            }
        }
    }
}

/// Why hcl-rs could not evaluate, without any of the values, which may be secrets.
fn reason(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Index(_) => "There is no such element.".to_owned(),
        ErrorKind::NoSuchKey(_) => "There is no such key.".to_owned(),
        ErrorKind::Unexpected(_, expected) => format!("A part of it is not {expected}."),
        ErrorKind::UnaryOp(operator, _) => {
            format!("A part of it has a type that `{operator}` cannot be applied to.")
        }
        ErrorKind::BinaryOp(_, operator, _) => {
            format!("A part of it has a type that `{operator}` cannot be applied to.")
        }
        _ => "A part of it has the wrong type.".to_owned(),
    }
}

/// The names of the locals that `expr` uses.
pub fn locals_of(expr: &Expression) -> Vec<String> {
    struct Names(Vec<String>);
    impl hcl_edit::visit::Visit for Names {
        fn visit_traversal(&mut self, node: &hcl_edit::expr::Traversal) {
            if let Expression::Variable(root) = &node.expr
                && root.as_str() == "local"
                && let Some(TraversalOperator::GetAttr(name)) =
                    node.operators.first().map(hcl_edit::Decorated::value)
            {
                self.0.push(name.as_str().to_owned());
            }
            hcl_edit::visit::visit_traversal(self, node);
        }
    }
    let mut names = Names(Vec::new());
    hcl_edit::visit::Visit::visit_expr(&mut names, expr);
    names.0
}
