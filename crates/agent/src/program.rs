//! The search for a program: execvp's rules with the child's own `PATH`.

/// Returns the paths to try, in order. A name with a slash is a path; an empty element of `PATH` is
/// the working directory (POSIX.1-2017, XBD 8.3).
pub(crate) fn candidates(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') || program.is_empty() {
        return vec![program.to_vec()];
    }
    path.split(|byte| *byte == b':')
        .map(|folder| match folder {
            [] => [b"./", program].concat(),
            [.., b'/'] => [folder, program].concat(),
            _ => [folder, b"/", program].concat(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(program: &str, path: &str) -> Vec<String> {
        candidates(program.as_bytes(), path.as_bytes())
            .into_iter()
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn only_a_name_without_slash_is_searched_in_path() {
        assert_eq!(texts("ls", "/bin:/usr/bin/"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(texts("./ls", "/bin"), ["./ls"]);
        assert_eq!(texts("a/b", "/bin"), ["a/b"]);
        assert_eq!(texts("", "/bin"), [""]);
    }

    #[test]
    fn empty_element_is_the_working_directory() {
        assert_eq!(texts("ls", ":/bin"), ["./ls", "/bin/ls"]);
        assert_eq!(texts("ls", ""), ["./ls"]);
    }
}
