//! The service account that a command works as: by option or by environment, as a token or as a file with it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::{
    failure::Failure,
    token::{TOKEN_LEN_MAX, Token},
};

const TOKEN_VARIABLE: &str = "POMERIUM_SERVICE_ACCOUNT";
const FILE_VARIABLE: &str = "POMERIUM_SERVICE_ACCOUNT_FILE";

/// Where the token is. Its text is a secret: no `Debug`.
#[derive(PartialEq, Eq)]
pub(super) enum ServiceAccount {
    /// Here.
    Token(String),
    /// In a file.
    File(PathBuf),
}

impl ServiceAccount {
    /// What the options say, or else the environment; a variable that is empty is not set.
    pub(super) fn of(
        (token, file): (Option<String>, Option<PathBuf>),
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Failure> {
        if let Some(said) = token.map(Self::Token).or_else(|| file.map(Self::File)) {
            return Ok(Some(said));
        }
        let set = |name| variable(name).filter(|value| !value.is_empty());
        match (set(TOKEN_VARIABLE), set(FILE_VARIABLE)) {
            (None, None) => Ok(None),
            // A value that is no text is no token either; its words are for the same place as all other wrong ones.
            (Some(token), None) => Ok(Some(Self::Token(token.into_string().unwrap_or_default()))),
            (None, Some(file)) => Ok(Some(Self::File(file.into()))),
            (Some(_), Some(_)) => Err(Failure::TwoServiceAccounts),
        }
    }

    /// The token.
    pub(super) fn token(self) -> Result<Token, Failure> {
        let text = match self {
            Self::Token(text) => text,
            Self::File(path) => read(&path).map_err(Failure::ServiceAccountFile)?,
        };
        Token::parse(&text).map_err(Failure::ServiceAccount)
    }
}

/// The text of a file that may be anything: no more of it than a token can have.
fn read(path: &Path) -> io::Result<String> {
    let len_max = u64::try_from(TOKEN_LEN_MAX).map_err(io::Error::other)? + 16;
    let mut text = String::new();
    let len = File::open(path)?.take(len_max).read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len < len_max) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long for a token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        options: (Option<&str>, Option<&str>),
        variables: &[(&str, &str)],
    ) -> Result<Option<ServiceAccount>, Failure> {
        let options = (options.0.map(str::to_owned), options.1.map(PathBuf::from));
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        ServiceAccount::of(options, find)
    }

    #[test]
    fn options_go_before_the_environment() {
        let (token, file) = ((TOKEN_VARIABLE, "a.b.c"), (FILE_VARIABLE, "/run/token"));
        assert!(of((None, None), &[]).unwrap().is_none());
        assert!(of((None, None), &[(TOKEN_VARIABLE, "")]).unwrap().is_none());
        assert!(of((None, None), &[token]).unwrap() == Some(ServiceAccount::Token("a.b.c".to_owned())));
        assert!(of((None, None), &[file]).unwrap() == Some(ServiceAccount::File("/run/token".into())));
        let said = of((None, Some("/mine")), &[token, file]).unwrap();
        assert!(said == Some(ServiceAccount::File("/mine".into())));
        assert!(matches!(of((None, None), &[token, file]), Err(Failure::TwoServiceAccounts)));
    }

    #[test]
    fn a_file_without_end_is_refused_before_it_fills_the_memory() {
        let endless = ServiceAccount::File("/dev/zero".into()).token();
        assert!(matches!(endless, Err(Failure::ServiceAccountFile(_))));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "e30.e30.c2ln\n").unwrap();
        assert_eq!(ServiceAccount::File(path).token().unwrap().expose(), "e30.e30.c2ln");
    }
}
