//! What a new definition of a server means for the one that runs.

use super::Definition;

/// What differs between two definitions of the same server, by what has to happen.
///
/// Several may be set; `Change::default()` is no difference. Two definitions with the same values are the same, even
/// if the files differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Description or call timeout: taken over as they are, nothing reconnects.
    pub details: bool,
    /// Tool prefix or family: the catalogue changes, nothing reconnects.
    pub catalogue: bool,
    /// Whatever the connection or the route depends on: new route content and a new upstream session.
    pub connection: bool,
    /// Suspended or auto-start: what the operator wants has changed.
    pub intent: bool,
}

impl Change {
    /// Whether the definitions are the same.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Definition {
    /// What changed since `old`.
    pub fn change_from(&self, old: &Self) -> Change {
        // Taken apart, so that a new field does not compile before it has a place here.
        let Self {
            name,
            transport,
            description,
            tool_prefix,
            family,
            auto_start,
            suspended,
            timeout,
            call_timeout,
            isolation,
            route,
            policies,
            auth,
            // Wherever a value was put in, that field differs as well.
            substituted: _,
        } = self;
        Change {
            details: *description != old.description || *call_timeout != old.call_timeout,
            catalogue: *tool_prefix != old.tool_prefix || *family != old.family,
            connection: *name != old.name
                || *transport != old.transport
                || *timeout != old.timeout
                || *isolation != old.isolation
                || *route != old.route
                || *policies != old.policies
                || *auth != old.auth,
            intent: *auto_start != old.auto_start || *suspended != old.suspended,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::definition;

    const NOTHING: Change = Change { details: false, catalogue: false, connection: false, intent: false };
    const DETAILS: Change = Change { details: true, ..NOTHING };
    const CATALOGUE: Change = Change { catalogue: true, ..NOTHING };
    const CONNECTION: Change = Change { connection: true, ..NOTHING };
    const INTENT: Change = Change { intent: true, ..NOTHING };

    const STDIO: &str = "type: stdio, command: uvx";
    const REMOTE: &str = "type: streamable-http, url: http://127.0.0.1:9000/mcp";

    #[rstest]
    #[case(STDIO, STDIO, NOTHING)]
    #[case::order(STDIO, "command: 'uvx', type: \"stdio\", timeout: 30", NOTHING)]
    #[case::normalised(REMOTE, "type: streamable-http, url: 'HTTP://127.0.0.1:9000/a/../mcp'", NOTHING)]
    #[case::description(STDIO, "type: stdio, command: uvx, description: d", DETAILS)]
    #[case::call_timeout(STDIO, "type: stdio, command: uvx, callTimeout: 5", DETAILS)]
    #[case::prefix(STDIO, "type: stdio, command: uvx, toolPrefix: t", CATALOGUE)]
    #[case::family(STDIO, "type: stdio, command: uvx, family: {name: f, instanceArg: i}", CATALOGUE)]
    #[case::command(STDIO, "type: stdio, command: npx", CONNECTION)]
    #[case::args(STDIO, "type: stdio, command: uvx, args: [a]", CONNECTION)]
    #[case::env(STDIO, "type: stdio, command: uvx, env: {A: b}", CONNECTION)]
    #[case::inherit(STDIO, "type: stdio, command: uvx, inheritEnv: [A]", CONNECTION)]
    #[case::cwd(STDIO, "type: stdio, command: uvx, cwd: sub", CONNECTION)]
    #[case::timeout(STDIO, "type: stdio, command: uvx, timeout: 31", CONNECTION)]
    #[case::isolation(STDIO, "type: stdio, command: uvx, isolation: session", CONNECTION)]
    #[case::route(STDIO, "type: stdio, command: uvx, route: mcp", CONNECTION)]
    #[case::policies(STDIO, "type: stdio, command: uvx, policies: {a: 1}", CONNECTION)]
    #[case::kind(REMOTE, "type: sse, url: http://127.0.0.1:9000/mcp", CONNECTION)]
    #[case::url(REMOTE, "type: streamable-http, url: http://127.0.0.1:9001/mcp", CONNECTION)]
    #[case::headers(
        REMOTE,
        "type: streamable-http, url: http://127.0.0.1:9000/mcp, headers: {A: b}",
        CONNECTION
    )]
    #[case::auth(
        REMOTE,
        "type: streamable-http, url: http://127.0.0.1:9000/mcp, auth: {type: oauth}",
        CONNECTION
    )]
    #[case::suspended(STDIO, "type: stdio, command: uvx, suspended: true", INTENT)]
    #[case::auto_start(STDIO, "type: stdio, command: uvx, autoStart: false", INTENT)]
    #[case::several(STDIO, "type: stdio, command: x, description: d, toolPrefix: t, suspended: true",
        Change { details: true, catalogue: true, connection: true, intent: true })]
    fn changes_are_told_apart(#[case] old: &str, #[case] new: &str, #[case] expected: Change) {
        let (old, new) = (definition(old), definition(new));
        assert_eq!(new.change_from(&old), expected);
        assert_eq!(old.change_from(&new), expected);
        assert_eq!(expected.is_nothing(), old == new);
    }

    #[test]
    fn a_secret_that_changed_is_a_change() {
        let old = definition("type: stdio, command: uvx, env: {A: hunter22}");
        let new = definition("type: stdio, command: uvx, env: {A: hunter23}");
        assert_eq!(new.change_from(&old), CONNECTION);
    }
}
