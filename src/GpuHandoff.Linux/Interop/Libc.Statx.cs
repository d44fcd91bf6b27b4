using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

/// <summary>struct statx (linux/stat.h), the fields that we read.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
struct Status
{
    [FieldOffset(20)] public uint Owner;
    [FieldOffset(24)] public uint Group;
    [FieldOffset(28)] public ushort Mode;
    [FieldOffset(32)] public ulong Inode;
    [FieldOffset(40)] public ulong Size;
    [FieldOffset(112)] public long ModifiedSeconds;
    [FieldOffset(120)] public uint ModifiedNanoseconds;
    [FieldOffset(128)] public uint DeviceMajor;
    [FieldOffset(132)] public uint DeviceMinor;
    [FieldOffset(136)] public uint FileSystemMajor;
    [FieldOffset(140)] public uint FileSystemMinor;

    public readonly bool IsCharacterDevice => (Mode & 0xF000) == 0x2000;
    public readonly bool IsFile => (Mode & 0xF000) == 0x8000;
    public readonly bool IsFolder => (Mode & 0xF000) == 0x4000;
    public readonly bool IsLink => (Mode & 0xF000) == 0xA000;
    public readonly uint Permissions => Mode & 0xFFFu;

    public readonly DateTimeOffset Modified() => DateTimeOffset.FromUnixTimeSeconds(ModifiedSeconds).AddTicks(ModifiedNanoseconds / TimeSpan.NanosecondsPerTick);
}

static partial class Libc
{
    public const int FromCurrentFolder = -100;
    public const int NoFollow = 0x100;

    /// <summary>AT_STATX_DONT_SYNC: what is known will do. Without it a dead server of NFS or FUSE would keep us waiting.</summary>
    public const int DoNotSync = 0x4000;

    /// <summary>AT_EMPTY_PATH: the open file itself.</summary>
    public const int EmptyPath = 0x1000;

    public const uint BasicStatus = 0x7ff;

    [LibraryImport(Library, EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Statx(int folder, string path, int flags, uint mask, out Status status);

    /// <param name="name">The first byte of a name that ends with a zero.</param>
    [LibraryImport(Library, EntryPoint = "statx")]
    public static partial int StatxName(int folder, ref readonly byte name, int flags, uint mask, out Status status);
}
