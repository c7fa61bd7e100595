package host

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// account is whom a plugin runs as. Nil: as the daemon.
type account struct {
	uid, gid uint32
	// groups are the user's other ones.
	groups []uint32
}

// runsAs finds the account that the options name.
func runsAs(opts *Options) (*account, error) {
	if opts.User == "" && opts.Group == "" {
		return nil, nil //nolint:nilnil // nil is the daemon's own account
	}
	a := &account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())} //nolint:gosec // ids are never negative on Unix
	if opts.User != "" {
		if err := a.setUser(opts.User); err != nil {
			return nil, err
		}
	}
	if opts.Group != "" {
		gid, err := groupID(opts.Group)
		if err != nil {
			return nil, err
		}
		a.gid = gid
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("to run a plugin as another user or group, callbackd has to be started as root")
	}
	return a, nil
}

// setUser takes the ids of a user. A number that no user has is taken as it is,
// without any group of its own but the one of the same number.
func (a *account) setUser(name string) error {
	u, err := user.Lookup(name)
	if number, numberErr := strconv.ParseUint(name, 10, 32); err != nil && numberErr == nil {
		a.uid, a.gid = uint32(number), uint32(number)
		u, err = user.LookupId(name)
		var unknown user.UnknownUserIdError
		if errors.As(err, &unknown) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("there is no user %q to run the plugin as: %w", name, err)
	}
	if a.uid, err = parseID(u.Uid); err != nil {
		return err
	}
	if a.gid, err = parseID(u.Gid); err != nil {
		return err
	}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("finding the groups of user %q: %w", name, err)
	}
	for _, g := range groups {
		gid, err := parseID(g)
		if err != nil {
			return err
		}
		a.groups = append(a.groups, gid)
	}
	return nil
}

func groupID(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		return parseID(g.Gid)
	}
	if number, numberErr := strconv.ParseUint(name, 10, 32); numberErr == nil {
		return uint32(number), nil
	}
	return 0, fmt.Errorf("there is no group %q to run the plugin as: %w", name, err)
}

func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the system gives %q as the number of an account: %w", text, err)
	}
	return uint32(n), nil
}

// own gives a folder to the account.
func (a *account) own(dir string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(dir, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("giving the folder of the plugin's socket to its user: %w", err)
	}
	return nil
}
