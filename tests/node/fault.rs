//! A filesystem that does not answer what a test picks.

/// A FUSE filesystem in Perl: a directory `sub`, and a file `f`, which have a few other names. It does not answer a request that `unanswered` names: a
/// Perl expression of `$op` (fuse_opcode of linux/fuse.h), `$node` and `$name`. Its parent, in which $target is the mount point, runs
/// `then`.
pub fn hostile(unanswered: &str, then: &str) -> String {
    hostile_from("", unanswered, then)
}

/// The same; before it has mounted it runs `first`.
pub fn hostile_from(first: &str, unanswered: &str, then: &str) -> String {
    format!(
        r#"exec perl - "$@" <<'END'
        use strict; $^F = 255; $| = 1;
        my ($source, $target) = @ARGV;
        {first}
        open(my $fuse, '+<', '/dev/fuse') or die; my $fd = fileno $fuse;
        system('mount', '-i', '-t', 'fuse.fault', '-o', "fd=$fd,rootmode=40000,user_id=0,group_id=0,allow_other",
            'x', $target) == 0 or die 'mount';
        my $server = fork // die;
        if (!$server) {{
            my $attr = sub {{ pack 'Q6L10', $_[0], 4096, 8, 0, 0, 0, 0, 0, 0, ($_[0] == 2 ? 0100644 : 040755), 1, 0, 0, 0, 4096, 0 }};
            while (sysread $fuse, my $request, 1 << 20) {{
                my (undef, $op, $unique, $node) = unpack 'LLQQ', $request;
                my $name = $op == 1 ? unpack('Z*', substr $request, 40) : '';
                next if $op == 2 || $op == 42 || $op == 36 || ({unanswered});
                my ($error, $body) = (-38, '');
                if ($op == 26) {{ ($error, $body) = (0, pack 'LLLLSSLLSSLL7', 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, (0) x 7) }}
                elsif ($op == 1) {{
                    my $ino = {{ f => 2, fuse => 2, sub => 3, hostmount => 4, mnt => 5 }}->{{$name}};
                    ($error, $body) = $ino ? (0, pack('QQQQLL', $ino, 0, 0, 0, 0, 0) . $attr->($ino)) : (-2, '');
                }}
                elsif ($op == 3) {{ ($error, $body) = (0, pack('QLL', 0, 0, 0) . $attr->($node)) }}
                elsif ($op == 14 || $op == 27) {{ ($error, $body) = (0, pack 'QLL', 0, 0, 0) }}
                syswrite $fuse, pack('LlQ', 16 + length $body, $error, $unique) . $body;
            }}
            exit;
        }}
        {then}
END"#
    )
}
