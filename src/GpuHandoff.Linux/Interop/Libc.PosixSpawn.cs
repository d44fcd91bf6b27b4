using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>POSIX_SPAWN_SETSID (spawn.h): a session of its own, out of reach of the terminal's signals.</summary>
    public const short NewSession = 0x80;

    /// <summary>POSIX_SPAWN_SETSIGDEF: what we or our caller ignore, the child does not.</summary>
    public const short DefaultSignals = 0x04;

    [LibraryImport(Library, EntryPoint = "posix_spawn", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int PosixSpawn(
        out int pid, string path, Span<byte> fileActions, Span<byte> attributes, nint[] arguments, nint[] environment);

    [LibraryImport(Library, EntryPoint = "posix_spawn_file_actions_init")]
    public static partial int InitFileActions(Span<byte> fileActions);

    [LibraryImport(Library, EntryPoint = "posix_spawn_file_actions_adddup2")]
    public static partial int AddDup(Span<byte> fileActions, int file, int newFile);

    [LibraryImport(Library, EntryPoint = "posix_spawn_file_actions_addopen", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int AddOpen(Span<byte> fileActions, int file, string path, int flags, uint mode);

    [LibraryImport(Library, EntryPoint = "posix_spawn_file_actions_destroy")]
    public static partial int DestroyFileActions(Span<byte> fileActions);

    [LibraryImport(Library, EntryPoint = "posix_spawnattr_init")]
    public static partial int InitSpawnAttributes(Span<byte> attributes);

    [LibraryImport(Library, EntryPoint = "posix_spawnattr_setflags")]
    public static partial int SetSpawnFlags(Span<byte> attributes, short flags);

    [LibraryImport(Library, EntryPoint = "posix_spawnattr_setsigdefault")]
    public static partial int SetDefaultSignals(Span<byte> attributes, ReadOnlySpan<byte> signals);

    [LibraryImport(Library, EntryPoint = "posix_spawnattr_destroy")]
    public static partial int DestroySpawnAttributes(Span<byte> attributes);
}
