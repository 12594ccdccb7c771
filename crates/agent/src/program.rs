//! Where a program may be: execvp's rules with the child's own `PATH`.

/// The paths to try in order. A name with a slash is itself, relative to the working directory;
/// an empty element of `PATH` is the working directory (POSIX.1-2017, XBD 8.3).
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
    fn a_name_is_looked_up_in_each_folder_and_a_path_is_not() {
        assert_eq!(texts("ls", "/bin:/usr/bin/"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(texts("./ls", "/bin"), ["./ls"]);
        assert_eq!(texts("a/b", "/bin"), ["a/b"]);
        assert_eq!(texts("", "/bin"), [""]);
    }

    #[test]
    fn an_empty_element_is_the_working_directory() {
        assert_eq!(texts("ls", ":/bin"), ["./ls", "/bin/ls"]);
        assert_eq!(texts("ls", ""), ["./ls"]);
    }
}
