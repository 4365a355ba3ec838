//! The command line, with Consul's flags.

use serde_json::Value;

use super::Failure;
use super::world::World;

pub fn run(world: &World, input: &Value, expect: &Value) -> Result<(), Failure> {
    let arguments: Vec<&str> =
        input["cli"].as_array().expect("arguments").iter().filter_map(Value::as_str).collect();
    let twice = arguments.last().is_some_and(|last| last.starts_with("(twice"));
    let arguments = if twice { &arguments[..arguments.len() - 1] } else { &arguments[..] };
    if twice {
        world.operator.run_on(&world.agent, arguments).success();
    }
    let done = world.operator.run_on(&world.agent, arguments);
    let shown = || format!("exit {:?}, {:?}, {:?}", done.code, done.stdout, done.stderr);
    match expect["error"].as_str() {
        Some(error) if !done.succeeded() && done.stderr.contains(error) => Ok(()),
        Some(error) => Err(format!("expected {error:?}; {}", shown())),
        None => {
            let right = done.succeeded() && expect["ok"]["stdout"] == done.stdout.as_str();
            if right { Ok(()) } else { Err(format!("expected {}; {}", expect["ok"], shown())) }
        }
    }
}
