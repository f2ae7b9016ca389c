//! What is logged at INFO and above: a [`Message`] for each kind, with its level, its code, its
//! `MESSAGE_ID` in the journal and its words, and the one way to log it, [`log!`].
//!
//! A call names the variant, so that nothing depends on the words. `tracing` carries the code as
//! the name of the event, and the journal finds the variant by it. Words may be changed here at any
//! time; the code and the id of a kind never change, and are never used again for another. A new
//! kind takes any random id (`systemd-id128 new`).
//!
//! docs/operations.md lists them all: `KMS_SIG_BLESS=1 cargo test --test it -- docs` writes the
//! list anew.

use tracing::Level;

/// Makes [`Message`] of a list of lines `Variant: LEVEL, "code", id, "words";`. An id or a code
/// that stands twice does not compile.
macro_rules! messages {
    ($($name:ident: $level:ident, $code:literal, $id:literal, $words:literal;)+) => {
        /// A kind of message. Its discriminant is its `MESSAGE_ID`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u128)]
        pub enum Message {
            $(#[doc = concat!("`", $words, "`")] $name = $id,)+
        }

        impl Message {
            /// All of them, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The level at which it is logged.
            pub const fn level(self) -> Level {
                match self {
                    $(Self::$name => Level::$level,)+
                }
            }

            /// One word for it, which stays when the words change.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The message with this code.
            #[deny(unreachable_patterns)] // the same code twice
            pub(crate) fn from_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// What people read.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

messages! {
    Adopted: INFO, "adopted", 0xebaf_dbe3_389c_4c72_9725_0656_2432_0a34,
        "a valid signature was there; adopted";
    BatchNotAccepted: WARN, "batch-not-accepted", 0x3560_bd11_5db4_44dc_b221_bf43_31e2_081b,
        "a batch signature, and the rule has no accept_batch = true";
    ControlSocketUnavailable: ERROR, "control-socket-unavailable", 0x9942_7dc8_96a2_4013_9863_b1fa_2c2c_32b1,
        "no control socket; status and its like cannot be asked";
    CredentialsNotRefreshed: WARN, "credentials-not-refreshed", 0x69f6_67c7_8bab_47e8_b388_8497_ac03_0998,
        "no new credentials yet; the old ones are still good";
    CredentialsRejected: WARN, "credentials-rejected", 0xcb9c_2a13_bb0a_4ce1_9ab0_f4e7_17e8_6637,
        "KMS does not know the credentials, and new ones cannot be had";
    CredentialsReplaced: INFO, "credentials-replaced", 0x9526_72fd_40d5_412c_8bbd_1eea_9384_c090,
        "KMS does not know the credentials; there are new ones";
    Delivered: INFO, "delivered", 0x0ada_9ca5_a2b2_4399_998c_ea04_105e_a192,
        "delivered";
    DestinationReplaced: ERROR, "destination-replaced", 0x09b0_c0e5_b152_4b89_9f59_a888_01ae_79fc,
        "the destination was replaced or removed; holding until it is there";
    DirectoriesAvailable: INFO, "directories-available", 0xe329_0e2f_99bd_429a_906c_4a3e_7cb5_026a,
        "the directories are there again";
    DirectoriesUnresponsive: ERROR, "directories-unresponsive", 0x809d_36bd_fb82_4fdb_9537_48ff_f3aa_c63e,
        "the directories of a rule neither open nor fail to; not waiting for them";
    DirectorySkipped: WARN, "directory-skipped", 0xd551_338e_b3c3_43b7_96ee_0d87_f4c9_5831,
        "directory skipped";
    DryRunAction: INFO, "dry-run-action", 0xa87e_d235_67af_4828_a21f_d208_d47a_2e5d,
        "dry run: would";
    DryRunCreate: INFO, "dry-run-create", 0x8f6e_1d6c_dda6_4f96_af07_86dc_3564_6737,
        "dry run: would create";
    EndedByError: ERROR, "ended-by-error", 0xecaf_0fa5_bcbf_413b_8f21_25c9_8c52_f146,
        "ended by an error";
    EventsLost: WARN, "events-lost", 0x45aa_f01c_db80_47fb_93dd_6f6b_b954_afa5,
        "events were lost; watching anew and scanning";
    EventsStopped: ERROR, "events-stopped", 0x0d46_c2bb_f8f2_41cf_af39_3ec1_8c56_3a9c,
        "events no longer arrive; watching anew and scanning often";
    EventsUnavailable: ERROR, "events-unavailable", 0x5251_4254_68e7_4328_b5e1_958a_bbc1_f210,
        "no events; scanning often instead";
    EventsUnreliable: INFO, "events-unreliable", 0xd07e_00da_9c4b_4310_a18d_17fd_9809_7e55,
        "events cannot be relied on there; scanning often instead";
    FileSystemUnresponsive: ERROR, "file-system-unresponsive", 0x28d9_c662_78cd_4cb5_b2c6_74b3_3d2f_3e57,
        "the file system does not answer; only this part waits for it";
    HeadNotSealed: ERROR, "head-not-sealed", 0x9bc3_ef49_68ca_42ef_ad85_d64b_6ae8_8346,
        "the head of the record is not sealed";
    HeadSealed: INFO, "head-sealed", 0x33f7_0d2b_e845_4873_ac82_7ddf_310f_19aa,
        "the head of the record is sealed again";
    Held: ERROR, "held", 0xe1ec_6f1d_d8e6_473f_a22b_dc7c_43a0_10fb,
        "held";
    HeldRetrying: WARN, "held-retrying", 0x9129_7c4b_fb00_4b1a_8134_04cf_fd94_526d,
        "held; will be tried again";
    HoldsEnded: INFO, "holds-ended", 0x0dc8_9b2c_0121_4225_80b0_5979_29d6_ff56,
        "held files are processed again";
    Invalid: ERROR, "invalid", 0xec1f_4635_4dee_43c6_a6a3_b960_35e2_4a53,
        "invalid";
    KeyringMissing: ERROR, "keyring-missing", 0x738b_56ae_019f_4db4_81ca_5063_836b_3415,
        "the keyring is missing although there is state; put it back, or remove the state to begin again";
    KmsAnsweredForAnother: ERROR, "kms-answered-for-another", 0x5426_2202_b15d_4f03_949e_ff78_3e0a_93d4,
        "KMS decrypted with another key than the one that was named; its answer counts for nothing";
    KmsResponsive: INFO, "kms-responsive", 0x2b91_421b_4d92_4758_bd7e_006d_6a2f_ef4c,
        "KMS answers again";
    KmsUnresponsive: ERROR, "kms-unresponsive", 0x6649_e004_2a78_43ca_9c86_ba74_ccf1_5ac9,
        "KMS does not answer; asking again every half minute";
    LegacyFileLeft: WARN, "legacy-file-left", 0x8c7a_7656_0c12_4b74_b30b_6966_780a_06ff,
        "left by an earlier version";
    LegacyFileRecovered: WARN, "legacy-file-recovered", 0xb962_2d7a_30c3_41be_8215_43f7_65c7_9e1a,
        "an earlier version had kept somebody's file there; it is now kms-sig-recovered-… beside it";
    LocalKeyCreated: INFO, "local-key-created", 0x79bc_297d_c33c_4979_88db_9803_1469_c9d5,
        "local key made";
    LockHeldByStranger: WARN, "lock-held-by-stranger", 0x3172_1320_a366_4268_8c6d_4606_8b96_82a2,
        "a process of another user has the lock on the watched directory; working there without it";
    LockUnavailable: WARN, "lock-unavailable", 0x7780_04d3_303b_404c_a9e2_2aa1_145e_52fd,
        "the file system of the watched directory locks no directories; a second daemon would not be noticed";
    LogLinesDropped: WARN, "log-lines-dropped", 0x82f9_a366_f71d_4693_baae_c5c4_d73a_2dac,
        "log lines were dropped";
    LoopResponsive: INFO, "loop-responsive", 0x3244_c280_f039_4c50_8c58_1ebd_cbef_2a65,
        "event loop responsive again";
    LoopUnresponsive: ERROR, "loop-unresponsive", 0x5094_198f_7892_4ff3_b9a9_b127_8f49_26be,
        "event loop unresponsive; the watchdog is not notified";
    MetricsUnavailable: ERROR, "metrics-unavailable", 0xf94c_f2c3_4e10_4856_ae4c_6a60_1dec_3c2a,
        "metrics listener unavailable; see [control] metrics";
    NewPolicyFault: ERROR, "new-policy-fault", 0x1772_3083_a7e4_4086_8ef2_4da5_7120_6aeb,
        "the new policy has a fault";
    NotifyFailed: WARN, "notify-failed", 0xb341_60d3_bff2_444a_9ad1_ee6a_10c1_d474,
        "cannot notify the service manager";
    OrphanRemoved: INFO, "orphan-removed", 0x7c1d_5a0e_93b4_4f26_8a57_d2e0_61c9_3b84,
        "a signature of ours without its file is removed; the content is signed under another name";
    OrphanSignatures: WARN, "orphan-signatures", 0x2e96_b8f3_07da_4c1b_b6e5_1f48_9ad3_c072,
        "signatures of ours lie there without their files";
    PolicyFault: ERROR, "policy-fault", 0xeb8e_af07_3f78_46f2_8334_c4e6_4e35_f41a,
        "the policy has a fault";
    PolicyReloaded: INFO, "policy-reloaded", 0x1ade_c35c_1fca_40d9_a5d9_6677_b175_58ac,
        "policy reloaded";
    PrivateFolderMoved: WARN, "private-folder-moved", 0x1e4d_6561_8526_4c2e_b0e0_69b6_f0d0_a3ba,
        "a folder of the daemon's own was found there, and what lies in it cannot be finished yet";
    PrivateFolderNameTaken: WARN, "private-folder-name-taken", 0x42f0_c0db_d573_4ad5_9641_d412_f0a9_118c,
        "something that is not the daemon's has the name .kms-sig in the watched directory; using another name";
    PrivateFolderRecovered: WARN, "private-folder-recovered", 0x2de6_1a3c_d5e7_4503_845e_2be4_d67d_407b,
        "a folder of the daemon's own was found there; what lay in it is finished";
    PurgeFailed: ERROR, "purge-failed", 0x1e35_d1df_3564_41a2_9efd_e892_d888_3abd,
        "cannot purge from quarantine";
    Purged: INFO, "purged", 0x7009_979a_18a7_42d8_bf48_7f79_d8b7_f7ce,
        "purged from quarantine";
    QuarantineOnOtherMount: WARN, "quarantine-on-other-mount", 0x7473_1f30_bc48_43bf_98cb_ae98_34f8_3289,
        "quarantine is on another mount of the same disk; files are copied there instead of moved";
    QuarantineUnreadable: ERROR, "quarantine-unreadable", 0xe17b_a5c9_2fbd_4a6b_aae9_c651_8972_2fcb,
        "cannot read the quarantine store";
    Quarantined: ERROR, "quarantined", 0x1558_5738_1a8e_4249_bc6c_ece5_196d_3028,
        "quarantined";
    ReadingChangesTimes: WARN, "reading-changes-times", 0xee3a_46cd_8d1b_4b8e_9a9d_1c38_aa13_5deb,
        "reading a file changes its times; a longer settle than its file system takes to write back is needed";
    Ready: INFO, "ready", 0xca66_16f9_4a20_4e53_b6fd_c526_b473_172e,
        "ready";
    RecordBroken: ERROR, "record-broken", 0x28ca_f6a6_fc6e_4790_b8ba_abed_c7e0_37d9,
        "the record is broken; nothing is pruned";
    RecordNotPruned: WARN, "record-not-pruned", 0xf43d_6bb7_2822_422b_8450_4f07_29dc_f1ea,
        "the record cannot be pruned; will be tried again";
    RecordPruned: INFO, "record-pruned", 0xadee_2b1f_71c1_4675_9612_350f_1cdb_9ed1,
        "record pruned";
    RefusalsNotLogged: WARN, "refusals-not-logged", 0x0308_c072_3123_4ad0_9bd0_fbf3_eb2f_66ad,
        "more files were refused in a minute than are logged";
    Refused: WARN, "refused", 0x6c35_0f4c_0700_4e6a_b2e1_1a82_3ee9_a1dc,
        "refused";
    ReloadRefused: ERROR, "reload-refused", 0xb179_0ea1_2b3c_421e_85a5_562c_7580_b6aa,
        "reload refused; the old policy stays";
    RemovalsNotRestored: ERROR, "removals-not-restored", 0x1574_946d_d265_468d_b0d9_bea5_66e3_2400,
        "files that an earlier run was removing are not restored; see .kms-sig in the watched directory";
    RestorePending: WARN, "restore-pending", 0x60d1_d490_22d6_4d7d_9dcf_1e15_27c9_649c,
        "files wait in .kms-sig until they can go back to their names";
    RuleAbandoned: ERROR, "rule-abandoned", 0x4f77_c20c_4116_4929_92ea_f1b8_8240_39e6,
        "abandoned by the reload: its file system does not answer; the rule continues when it does";
    RuleHeld: ERROR, "rule-held", 0x4cda_1500_aba3_42aa_9c88_1f69_515a_7f22,
        "held: the rule cannot work";
    RuleResumed: INFO, "rule-resumed", 0xc873_b69c_ccb4_46af_a947_d2fb_9f7f_e32f,
        "the rule continues, under the policy in force";
    ScanRequested: INFO, "scan-requested", 0x6be0_7db6_d635_462e_915f_856e_0ccb_760b,
        "scanning, as requested";
    SignatureUnconfirmed: INFO, "signature-unconfirmed", 0x83a6_cc97_6e53_443e_a4a1_260e_7d8f_8b45,
        "signed, but the signature is not known to be in place; that it was made is on record";
    Signed: INFO, "signed", 0xd6e5_dad3_f22e_4aa3_ba3f_2654_e728_41d9,
        "signed";
    SignedAndDelivered: INFO, "signed-and-delivered", 0xfe35_4271_76fa_4ddf_b40e_f34f_ef6f_1f35,
        "signed and delivered";
    SignedBeforeShutdown: INFO, "signed-before-shutdown", 0xb629_6fbc_de44_4a8f_9dd4_1cfd_dbbc_6034,
        "signed before the last shutdown; now on record";
    StateCreated: INFO, "state-created", 0x740f_5327_8cb7_4b47_ac34_2e7d_db19_4695,
        "state begun";
    StateNotPruned: WARN, "state-not-pruned", 0x677c_9eba_b1ba_4a0d_9cbb_6a4a_1afb_cd33,
        "state was not pruned";
    StateSetAside: ERROR, "state-set-aside", 0x7968_6b64_b21e_4283_8ebd_5996_1d56_4c3a,
        "state was damaged and is set aside; every file will be looked at anew, history begins again";
    StateUnreadable: ERROR, "state-unreadable", 0xf41a_fd4c_f403_4162_9343_fd84_1e97_14dd,
        "state cannot be read";
    StillChanging: ERROR, "still-changing", 0xfcd7_8f1a_f509_4fbc_a89c_f28b_236b_47aa,
        "has not been complete for an hour; still waiting";
    Stopping: INFO, "stopping", 0x3b7f_ec4a_ec78_4887_8aa1_748c_c247_9bbc,
        "stopping; files in hand are finished first";
    SupersededAccepted: ERROR, "superseded-accepted", 0xdab5_33cc_baf9_4d46_8e09_2445_265f_8e36,
        "superseded content is accepted again";
    TooManyDirectories: ERROR, "too-many-directories", 0x380a_488a_27f4_4c34_b988_a203_d2cd_fb04,
        "too many or too deep directories; the rest is not watched";
    Valid: INFO, "valid", 0xe234_b8b4_a925_4e09_916e_f482_5ed1_2cdd,
        "valid";
    WatchIncomplete: ERROR, "watch-incomplete", 0x9ebd_0833_8ecf_403f_b82f_002a_cfc3_9dd5,
        "not all directories are watched; scanning often instead";
    WatchedDirectoryReplaced: ERROR, "watched-directory-replaced", 0x0c63_c281_c8f7_49eb_81ac_810d_5e07_e5b9,
        "the watched directory was replaced or removed; holding until it is there";
    WatchedDirectoryUnreadable: ERROR, "watched-directory-unreadable", 0xee59_1cb1_d4d8_4e10_a958_de4b_2f5e_0d29,
        "the watched directory cannot be read";
}

impl Message {
    /// What `MESSAGE_ID` is in the journal.
    pub const fn id(self) -> u128 {
        self as u128
    }
}

/// Logs a [`Message`], with fields as the macros of `tracing` take them: `log!(Held, rule, %file)`.
/// `log!(Held at WARN, …)` logs it at another level than its own.
macro_rules! log {
    ($message:ident at $level:ident $(, $($fields:tt)*)?) => {
        $crate::message::log!(@ $message, tracing::Level::$level, $($($fields)*)?)
    };
    ($message:ident $(, $($fields:tt)*)?) => {
        $crate::message::log!(
            @ $message, $crate::message::Message::$message.level(), $($($fields)*)?
        )
    };
    (@ $message:ident, $level:expr, $($fields:tt)*) => {
        tracing::event!(
            name: $crate::message::Message::$message.code(),
            $level,
            { $($fields)* },
            "{}",
            $crate::message::Message::$message.words()
        )
    };
}
pub(crate) use log;
