# A seccomp profile of the size and kind of Docker's, from the names of all system calls and --arg machine of uname -m:
# what touches the host is refused, two calls are looked at by their arguments.
def rule($name; $value; $two; $op): {names: [$name], action: "SCMP_ACT_ALLOW", args: [{index: 0, value: $value, valueTwo: $two, op: $op}]};
([inputs] - ("acct add_key bpf clone clone3 delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick init_module
	kcmp kexec_file_load kexec_load keyctl mount mount_setattr move_mount name_to_handle_at open_by_handle_at open_tree
	perf_event_open personality pivot_root process_vm_readv process_vm_writev quotactl reboot request_key setns settimeofday
	swapoff swapon syslog umount2 unshare userfaultfd" | [splits("\\s+")])) as $allowed
| {
	defaultAction: "SCMP_ACT_ERRNO",
	architectures: ({
		x86_64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
		aarch64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
	}[$machine] // []),
	syscalls: [
		{names: $allowed, action: "SCMP_ACT_ALLOW"},
		rule("personality"; 0, 8, 131072, 131080, 4294967295; 0; "SCMP_CMP_EQ"),
		rule("clone"; 2114060288; 0; "SCMP_CMP_MASKED_EQ")
	]
}
