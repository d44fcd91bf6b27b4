using GpuHandoff.Kernel;

namespace GpuHandoff.Proxmox;

/// <summary>The storage that every node has for itself, and what of it matters for a hookscript.</summary>
/// <param name="Snippets">The folder of its snippets.</param>
/// <param name="OffersSnippets">Whether its content has snippets: for lists and menus. A hookscript runs without.</param>
/// <remarks>
/// pve-storage, PVE/Storage/Plugin.pm: parse_config pins <c>local</c> to /var/lib/vz, whatever the file says; get_subdir takes
/// a folder of content-dirs. pve-guest-common, PVE/GuestHelpers.pm:check_hookscript asks neither for the content nor for
/// <c>disable</c>.
/// </remarks>
public sealed record LocalStorage(SysPath Snippets, bool OffersSnippets)
{
    static readonly SysPath _path = new("/var/lib/vz");

    // dir: local
    // 	path /var/lib/vz
    // 	content iso,vztmpl,backup
    // 	content-dirs snippets=hooks
    // 	shared 0
    public static LocalStorage Parse(string text)
    {
        var (folder, offers, isOurs) = ("snippets", false, false);
        foreach (var line in text.EnumerateLines())
        {
            if (line.IsWhiteSpace() || line[0] == '#')
                continue;
            if (line[0] is not (' ' or '\t'))
            {
                isOurs = line.TrimEnd() is "dir: local";
                continue;
            }
            if (!isOurs || line.Trim().ToString().Split([' ', '\t'], 2) is not [var key, var value])
                continue;
            if (key == "content")
                offers = value.Split(',').Any(c => c.Trim() == "snippets");
            else if (key == "content-dirs" && value.Split(',').Select(d => d.Trim().Split('=', 2)).FirstOrDefault(d => d is ["snippets", not ""]) is [_, var other])
                folder = other.Trim('/');
        }
        // A folder with ".." would be anywhere; Proxmox takes none either.
        return new(folder.Split('/').Contains("..") ? _path / "snippets" : _path / folder, offers);
    }
}
