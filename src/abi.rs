/// Version of the C ABI: the number at the end of the shared library's name. The build script and
/// the library both take it from here.
pub(crate) const ABI_VERSION: u32 = 0;
