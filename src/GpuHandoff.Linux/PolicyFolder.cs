using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// The policy's files: <c>gpu-handoff.yaml</c> of a folder, then <c>gpu-handoff.d/*.yaml</c> in the order of their names.
/// They say whom root stops and what leaves the host, so only root's own words count: no link, no file that others may write.
/// </summary>
/// <param name="owner">Whose files count; null: everybody's. A recorded machine's are the one's who recorded it.</param>
public sealed class PolicyFolder(string folder, uint? owner = 0)
{
    public const string Default = "/etc";
    public const string Main = "gpu-handoff.yaml";
    public const string DropIns = "gpu-handoff.d";

    const uint OthersWrite = 0x12;

    /// <summary>What the files say, or all that is wrong with them; and what is in the folder and does not count.</summary>
    public (PolicySet Said, ImmutableArray<PolicyError> Errors, ImmutableArray<string> Ignored) Read()
    {
        var (texts, errors, ignored) = (new List<PolicyText>(), ImmutableArray.CreateBuilder<PolicyError>(), ImmutableArray.CreateBuilder<string>());
        var main = Path.Combine(folder, Main);
        var dropIns = Path.Combine(folder, DropIns);
        if (Text(main, owner, errors) is { } text)
            texts.Add(new(main, text));
        if (IsThere(dropIns, errors))
        {
            foreach (var file in Files(dropIns, errors))
            {
                if (Path.GetExtension(file) == ".yml")
                    ignored.Add($"{file} does not count: the name of a policy file ends in .yaml");
                else if (Path.GetExtension(file) == ".yaml" && Text(file, owner, errors) is { } more)
                    texts.Add(new(file, more));
            }
        }
        // Where there is no file, as on most hosts, two calls have been made, and that is all.
        if (owner is not null && (texts is not [] || errors.Count > 0) && Untrusted(folder) is { } wrong)
            errors.Add(wrong);
        var (said, more2) = PolicyFiles.Read(texts);
        errors.AddRange(more2);
        return (said, errors.ToImmutable(), ignored.ToImmutable());
    }

    /// <summary>Any one file, whoever's it is: <c>policy check FILE</c>.</summary>
    public static ImmutableArray<PolicyError> Check(string file)
    {
        var errors = ImmutableArray.CreateBuilder<PolicyError>();
        var text = Text(file, owner: null, errors, mayBeLink: true);
        if (text is null && errors.Count == 0)
            errors.Add(Of(file, "there is no such file", "name one that is there"));
        return text is null ? errors.ToImmutable() : PolicyFiles.Read([new(file, text)]).Errors;
    }

    /// <summary>Why a file that is fine would not count in /etc as it is now; null: it would, or it is not there.</summary>
    public static string? NotYetTrusted(string file) =>
        Libc.Statx(Libc.FromCurrentFolder, file, 0, Libc.BasicStatus, out var status) == 0 && WhyNot(status, 0) is { } why ? why : null;

    /// <summary>The bytes of a file; null where there is none, or an error says why it does not count.</summary>
    static byte[]? Text(string file, uint? owner, ImmutableArray<PolicyError>.Builder errors, bool mayBeLink = false)
    {
        // A pipe would keep us waiting for somebody to write into it.
        var handle = Libc.Open(file, Libc.ReadOnly | Libc.CloseOnExec | Libc.NonBlocking | (mayBeLink ? 0 : Libc.NoLink));
        if (handle < 0)
        {
            var errno = Libc.LastError();
            if (errno == Errno.NoEntry)
                return null;
            errors.Add(errno == Errno.Loop
                ? Of(file, "it is a link, and whoever may change where it leads could change the policy", $"put the file itself there: sudo cp --remove-destination \"$(readlink -f {file})\" {file}")
                : Of(file, $"it cannot be read: {Errno.Say(errno)}", errno is Errno.AccessDenied or Errno.NotPermitted ? "use sudo" : "look at it: ls -l " + file));
            return null;
        }
        try
        {
            // Asked of what was opened: the name may mean another file by now.
            if (Libc.Statx(handle, "", Libc.EmptyPath, Libc.BasicStatus, out var status) != 0)
            {
                errors.Add(Of(file, $"it cannot be looked at: {Errno.Say(Libc.LastError())}", "look at it: ls -l " + file));
                return null;
            }
            if (!status.IsFile)
            {
                errors.Add(Of(file, "it is no file", "put a file there, or nothing"));
                return null;
            }
            if (owner is { } wanted && WhyNot(status, wanted) is { } why)
            {
                errors.Add(Of(file, why, $"look who changed it, then: sudo chown root:root {file} && sudo chmod go-w {file}"));
                return null;
            }
            return Whole(handle, file, errors);
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }

    static byte[]? Whole(int handle, string file, ImmutableArray<PolicyError>.Builder errors)
    {
        // One more than there may be: whoever judges the length sees that there is more.
        var bytes = new byte[PolicyFiles.Longest + 1];
        var length = 0;
        while (length < bytes.Length)
        {
            var read = Libc.Read(handle, bytes.AsSpan(length), bytes.Length - length);
            if (read == 0)
                break;
            if (read < 0)
            {
                errors.Add(Of(file, $"it cannot be read: {Errno.Say(Libc.LastError())}", "look at it: ls -l " + file));
                return null;
            }
            length += (int)read;
        }
        return bytes[..length];
    }

    /// <summary>Whether there is a folder of drop-ins, and one that counts.</summary>
    bool IsThere(string path, ImmutableArray<PolicyError>.Builder errors)
    {
        if (Libc.Statx(Libc.FromCurrentFolder, path, Libc.NoFollow, Libc.BasicStatus, out var status) != 0)
        {
            if (Libc.LastError() != Errno.NoEntry)
                errors.Add(Of(path, $"it cannot be looked at: {Errno.Say(Libc.LastError())}", "look at it: ls -ld " + path));
            return false;
        }
        if (!status.IsFolder)
            errors.Add(Of(path, "it is no folder", "make it one, or take it away"));
        else if (owner is { } wanted && WhyNot(status, wanted) is { } why)
            errors.Add(Of(path, why, $"look who changed it, then: sudo chown root:root {path} && sudo chmod go-w {path}"));
        else
            return true;
        return false;
    }

    PolicyError? Untrusted(string path) =>
        owner is { } wanted && Libc.Statx(Libc.FromCurrentFolder, path, 0, Libc.BasicStatus, out var status) == 0 && WhyNot(status, wanted) is { } why
            ? Of(path, why, $"look who changed it, then: sudo chown root:root {path} && sudo chmod go-w {path}")
            : null;

    // An access list that lets others write shows in the group's bits, which are its mask then (acl(5)).
    static string? WhyNot(Status status, uint owner) =>
        status.Owner != owner ? $"it belongs to user {status.Owner}, and only the words of user {owner} count"
        : (status.Permissions & OthersWrite) != 0 ? $"others than its owner may write it (mode 0{Convert.ToString(status.Permissions, 8)})"
        : null;

    static IEnumerable<string> Files(string path, ImmutableArray<PolicyError>.Builder errors)
    {
        try
        {
            // What begins with a dot is an editor's.
            return [.. Directory.EnumerateFileSystemEntries(path).Where(f => !Path.GetFileName(f).StartsWith('.')).Order(StringComparer.Ordinal)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            errors.Add(Of(path, $"it cannot be read: {e.Message}", RootUser.IsUs() ? "look at it: ls -ld " + path : "use sudo"));
            return [];
        }
    }

    static PolicyError Of(string file, string what, string hint) => new(file, 0, 0, what, hint);
}
