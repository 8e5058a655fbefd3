//! Writes and reads IGVM files with the igvm crate, one header a line.
//!
//!     igvm-driver write VERSION < LINES > FILE
//!     igvm-driver read FILE
//!     igvm-driver measure FILE
//!
//! Numbers are hexadecimal, data are hexadecimal digits or `-` for none. The last line may be
//! `error WHY`. `measure` prints `digest DIGITS`, the launch digest for SEV-SNP as the crate computes
//! it; how long that takes is up to the file.

use std::error::Error;
use std::io::{Read, Write};
use std::panic::catch_unwind;

use igvm::measurement::generate_snp_measurement;
use igvm::snp_defs::SevVmsa;
use igvm::{Arch, IgvmDirectiveHeader as Directive, IgvmFile, IgvmInitializationHeader as Init};
use igvm::{IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType, IGVM_VHS_PARAMETER,
    IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM,
};
use zerocopy::{FromBytes, IntoBytes};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("write") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            let file = write(&text, arguments.get(1).map_or("1", String::as_str))?;
            std::io::stdout().write_all(&file)?;
            Ok(())
        }
        Some(command @ ("read" | "measure")) => {
            std::panic::set_hook(Box::new(|_| {}));
            let raw = std::fs::read(&arguments[1])?;
            let view = if command == "read" { read } else { measure };
            match catch_unwind(|| view(&raw)) {
                Ok(Ok(lines)) => println!("{}", lines.join("\n")),
                Ok(Err(error)) => println!("error {error}"),
                Err(_) => println!("error panic"),
            }
            Ok(())
        }
        _ => Err("write VERSION, read FILE or measure FILE".into()),
    }
}

fn write(text: &str, version: &str) -> Outcome<Vec<u8>> {
    let (mut platforms, mut inits, mut directives) = (vec![], vec![], vec![]);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| u64::from_str_radix(words[index], 16);
        let small = |index: usize| number(index).map(|value| value as u32);
        let data = |index: usize| decode(words[index]);
        match words[0] {
            "platform" => platforms.push(IgvmPlatformHeader::SupportedPlatform(
                IGVM_VHS_SUPPORTED_PLATFORM {
                    compatibility_mask: small(1)?,
                    platform_type: IgvmPlatformType(number(2)? as u8),
                    highest_vtl: number(3)? as u8,
                    platform_version: 1,
                    shared_gpa_boundary: number(4)?,
                },
            )),
            "policy" => inits.push(Init::GuestPolicy {
                compatibility_mask: small(1)?,
                policy: number(2)?,
            }),
            "page" => directives.push(Directive::PageData {
                compatibility_mask: small(1)?,
                gpa: number(2)?,
                flags: IgvmPageDataFlags::from(small(3)?),
                data_type: IgvmPageDataType(number(4)? as u16),
                data: data(5)?,
            }),
            "area" => directives.push(Directive::ParameterArea {
                parameter_area_index: small(1)?,
                number_of_bytes: number(2)?,
                initial_data: data(3)?,
            }),
            "insert" => directives.push(Directive::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
                compatibility_mask: small(1)?,
                gpa: number(2)?,
                parameter_area_index: small(3)?,
            })),
            "required" => directives.push(Directive::RequiredMemory {
                compatibility_mask: small(1)?,
                gpa: number(2)?,
                number_of_bytes: small(3)?,
                vtl2_protectable: false,
            }),
            "error_range" => directives.push(Directive::ErrorRange {
                compatibility_mask: small(1)?,
                gpa: number(2)?,
                size_bytes: small(3)?,
            }),
            "context" => directives.push(Directive::SnpVpContext {
                compatibility_mask: small(1)?,
                gpa: number(2)?,
                vp_index: number(3)? as u16,
                vmsa: Box::new(SevVmsa::read_from_bytes(&data(4)?).map_err(|_| "not a VMSA")?),
            }),
            kind => directives.push(
                parameter(
                    kind,
                    IGVM_VHS_PARAMETER {
                        parameter_area_index: small(1)?,
                        byte_offset: small(2)?,
                    },
                )
                .ok_or_else(|| format!("unknown line: {line}"))?,
            ),
        }
    }
    let revision = match version {
        "2" => IgvmRevision::V2 {
            arch: Arch::X64,
            page_size: 4096,
        },
        _ => IgvmRevision::V1,
    };
    let mut file = Vec::new();
    IgvmFile::new(revision, platforms, inits, directives)?.serialize(&mut file)?;
    Ok(file)
}

fn parameter(kind: &str, place: IGVM_VHS_PARAMETER) -> Option<Directive> {
    Some(match kind {
        "VP_COUNT" => Directive::VpCount(place),
        "SRAT" => Directive::Srat(place),
        "MADT" => Directive::Madt(place),
        "MMIO_RANGES" => Directive::MmioRanges(place),
        "MEMORY_MAP" => Directive::MemoryMap(place),
        "COMMAND_LINE" => Directive::CommandLine(place),
        "SLIT" => Directive::Slit(place),
        "PPTT" => Directive::Pptt(place),
        "DEVICE_TREE" => Directive::DeviceTree(place),
        "ENVIRONMENT_INFO" => Directive::EnvironmentInfo(place),
        _ => return None,
    })
}

fn read(raw: &[u8]) -> Outcome<Vec<String>> {
    let file = IgvmFile::new_from_binary(raw, None)?;
    let mut lines = vec![];
    for IgvmPlatformHeader::SupportedPlatform(one) in file.platforms() {
        lines.push(format!(
            "platform {:x} {:x} {:x} {:x}",
            one.compatibility_mask, one.platform_type.0, one.highest_vtl, one.shared_gpa_boundary
        ));
    }
    for one in file.initializations() {
        lines.push(match one {
            Init::GuestPolicy {
                policy,
                compatibility_mask,
            } => format!("policy {compatibility_mask:x} {policy:x}"),
            _ => "other".into(),
        });
    }
    lines.extend(file.directives().iter().map(line));
    Ok(lines)
}

fn measure(raw: &[u8]) -> Outcome<Vec<String>> {
    let file = IgvmFile::new_from_binary(raw, None)?;
    let mask = file
        .platforms()
        .iter()
        .map(|IgvmPlatformHeader::SupportedPlatform(one)| one)
        .find(|one| one.platform_type == IgvmPlatformType::SEV_SNP)
        .ok_or("not for SEV-SNP")?
        .compatibility_mask;
    let digest = generate_snp_measurement(file.initializations(), file.directives(), mask)?;
    Ok(vec![format!("digest {}", encode(&digest))])
}

fn line(directive: &Directive) -> String {
    match directive {
        Directive::PageData {
            gpa,
            compatibility_mask,
            flags,
            data_type,
            data,
        } => format!(
            "page {compatibility_mask:x} {gpa:x} {:x} {:x} {}",
            u32::from(*flags),
            data_type.0,
            encode(data)
        ),
        Directive::ParameterArea {
            number_of_bytes,
            parameter_area_index,
            initial_data,
        } => format!(
            "area {parameter_area_index:x} {number_of_bytes:x} {}",
            encode(initial_data)
        ),
        Directive::ParameterInsert(one) => format!(
            "insert {:x} {:x} {:x}",
            one.compatibility_mask, one.gpa, one.parameter_area_index
        ),
        Directive::RequiredMemory {
            gpa,
            compatibility_mask,
            number_of_bytes,
            ..
        } => format!("required {compatibility_mask:x} {gpa:x} {number_of_bytes:x}"),
        Directive::ErrorRange {
            gpa,
            compatibility_mask,
            size_bytes,
        } => format!("error_range {compatibility_mask:x} {gpa:x} {size_bytes:x}"),
        Directive::SnpVpContext {
            gpa,
            compatibility_mask,
            vp_index,
            vmsa,
        } => format!(
            "context {compatibility_mask:x} {gpa:x} {vp_index:x} {}",
            encode(vmsa.as_bytes())
        ),
        Directive::SnpIdBlock {
            compatibility_mask,
            author_key_enabled,
            ld,
            family_id,
            image_id,
            version,
            guest_svn,
            id_key_algorithm,
            author_key_algorithm,
            id_key_signature,
            id_public_key,
            author_key_signature,
            author_public_key,
            ..
        } => format!(
            "id_block {compatibility_mask:x} {author_key_enabled:x} {} {} {} {version:x} {guest_svn:x} \
             {id_key_algorithm:x} {author_key_algorithm:x} {} {} {} {}",
            encode(ld),
            encode(family_id),
            encode(image_id),
            encode(id_key_signature.as_bytes()),
            encode(id_public_key.as_bytes()),
            encode(author_key_signature.as_bytes()),
            encode(author_public_key.as_bytes()),
        ),
        Directive::VpCount(one) => place("VP_COUNT", one),
        Directive::Srat(one) => place("SRAT", one),
        Directive::Madt(one) => place("MADT", one),
        Directive::MmioRanges(one) => place("MMIO_RANGES", one),
        Directive::MemoryMap(one) => place("MEMORY_MAP", one),
        Directive::CommandLine(one) => place("COMMAND_LINE", one),
        Directive::Slit(one) => place("SLIT", one),
        Directive::Pptt(one) => place("PPTT", one),
        Directive::DeviceTree(one) => place("DEVICE_TREE", one),
        Directive::EnvironmentInfo(one) => place("ENVIRONMENT_INFO", one),
        _ => "other".into(),
    }
}

fn place(kind: &str, one: &IGVM_VHS_PARAMETER) -> String {
    format!("{kind} {:x} {:x}", one.parameter_area_index, one.byte_offset)
}

fn encode(data: &[u8]) -> String {
    if data.is_empty() {
        return "-".into();
    }
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(digits: &str) -> Outcome<Vec<u8>> {
    if digits == "-" {
        return Ok(vec![]);
    }
    let pairs = (0..digits.len()).step_by(2);
    Ok(pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
        .collect::<Result<_, _>>()?)
}
