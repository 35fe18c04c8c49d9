//! `antiphon token`: a development token.

use antiphon_core::claims::{Abilities, Ability, ActorKind, Grant, GrantPattern, Scope};
use antiphon_server::{auth::TokenRequest, identity};

use crate::{
    cli::Token,
    connect::{mint, open_identity},
    failure::Failure,
};

pub(crate) fn run(token: &Token) -> Result<(), Failure> {
    let identity = open_identity(&token.data.data)?;
    println!("{}", mint(identity.minter(), &request(token)?)?);
    Ok(())
}

fn request(token: &Token) -> Result<TokenRequest, Failure> {
    let mut request = identity::development_request(token.user.clone());
    if token.service {
        request.kind = ActorKind::Service;
    }
    if !token.grants.is_empty() {
        request.grants = token.grants.iter().map(|grant| parse_grant(grant)).collect::<Result<_, _>>()?;
    }
    let scope = |word: &String| {
        Scope::from_word(word).ok_or_else(|| Failure::Argument {
            argument: "--scope",
            problem: format!("expected act_as, admin:read or admin:write, not {word:?}"),
        })
    };
    request.scopes = token.scopes.iter().map(scope).collect::<Result<_, _>>()?;
    request.lifetime_seconds = token.lifetime;
    Ok(request)
}

fn parse_grant(text: &str) -> Result<Grant, Failure> {
    let invalid =
        |problem: &str| Failure::Argument { argument: "--grant", problem: format!("{problem}, not {text:?}") };
    let (on, can) = text.split_once('=').ok_or_else(|| invalid("expected LOG=ABILITIES"))?;
    let on = GrantPattern::new(on).map_err(|error| invalid(&error.to_string()))?;
    let ability = |word: &str| {
        Ability::from_word(word).ok_or_else(|| invalid("expected read, send, signal, stream, room or manage"))
    };
    let can = can.split(',').map(ability).collect::<Result<Abilities, _>>()?;
    Ok(Grant { on, can })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_log_and_what_may_be_done_with_it() {
        let grant = parse_grant("c:support-*=read,send").unwrap();
        assert!(grant.allows("c:support-7", Ability::Send) && !grant.allows("c:support-7", Ability::Manage));
        for wrong in ["c:x", "c:x=", "c:x=fly", "x=read", "*=read"] {
            assert!(matches!(parse_grant(wrong), Err(Failure::Argument { .. })), "{wrong}");
        }
    }
}
