//! Settings of a terminal.

use minicbor::{Decode, Encode};
use rustix::io::Result;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

/// The indices of `c_cc` in the order of the kernel's numbers.
const CODES: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];
/// Local modes that concern one terminal only: the kernel's state of pending input, and work that a
/// peer does for it.
const NOT_PASSED: LocalModes =
    LocalModes::PENDIN.union(LocalModes::FLUSHO).union(LocalModes::EXTPROC);

/// A terminal's settings, as Linux's `struct termios` has them (asm-generic/termbits.h).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TtyModes {
    /// `c_iflag`.
    #[n(0)]
    pub input: u32,
    /// `c_oflag`.
    #[n(1)]
    pub output: u32,
    /// `c_cflag`.
    #[n(2)]
    pub control: u32,
    /// `c_lflag`.
    #[n(3)]
    pub local: u32,
    /// `c_cc`, from `VINTR` to `VEOL2`. Codes that are missing stay as they are.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub codes: Vec<u8>,
    /// Bits per second; 0 for the usual speed.
    #[n(5)]
    pub speed: u32,
}

impl TtyModes {
    /// Returns the settings that another terminal can have, too.
    pub fn of(settings: &Termios) -> Self {
        TtyModes {
            input: settings.input_modes.bits(),
            output: settings.output_modes.bits(),
            control: settings.control_modes.bits(),
            local: settings.local_modes.difference(NOT_PASSED).bits(),
            codes: CODES.map(|index| settings.special_codes[index]).to_vec(),
            speed: settings.output_speed(),
        }
    }

    /// Changes the settings of a terminal to these.
    pub fn apply(&self, settings: &mut Termios) -> Result<()> {
        let speed = if self.speed == 0 { settings.output_speed() } else { self.speed };
        settings.input_modes = InputModes::from_bits_retain(self.input);
        settings.output_modes = OutputModes::from_bits_retain(self.output);
        settings.control_modes = ControlModes::from_bits_retain(self.control);
        settings.local_modes = LocalModes::from_bits_retain(self.local);
        for (index, code) in CODES.into_iter().zip(&self.codes) {
            settings.special_codes[index] = *code;
        }
        settings.set_speed(speed)
    }
}
